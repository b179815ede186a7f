#include "core/key_table.hpp"

#include <thread>
#include <vector>

#include <catch2/catch.hpp>

using tally::FileKey;
using tally::KeyTable;

TEST_CASE("a key is found under the index it was stored with, on its own device only") {
  KeyTable table(10);
  REQUIRE(table.find({.ino = 7, .dev = 1}) == 0);
  REQUIRE(table.insert({.ino = 7, .dev = 1}, 3) == 3);
  REQUIRE(table.insert({.ino = 7, .dev = 2}, 4) == 4);
  REQUIRE(table.find({.ino = 7, .dev = 1}) == 3);
  REQUIRE(table.find({.ino = 7, .dev = 2}) == 4);
  REQUIRE(table.key_of(4) == FileKey{.ino = 7, .dev = 2});
}

TEST_CASE("a key that is taken keeps its index") {
  KeyTable table(10);
  table.insert({.ino = 7, .dev = 1}, 3);
  REQUIRE(table.insert({.ino = 7, .dev = 1}, 5) == 3);
  REQUIRE(table.find({.ino = 7, .dev = 1}) == 3);
}

TEST_CASE("an erased key is gone, and its index can be stored under another") {
  KeyTable table(10);
  table.insert({.ino = 7, .dev = 1}, 3);
  REQUIRE_FALSE(table.erase({.ino = 7, .dev = 1}, 4));
  REQUIRE(table.erase({.ino = 7, .dev = 1}, 3));
  REQUIRE_FALSE(table.erase({.ino = 7, .dev = 1}, 3));
  REQUIRE(table.find({.ino = 7, .dev = 1}) == 0);
  REQUIRE(table.insert({.ino = 8, .dev = 1}, 3) == 3);
  REQUIRE(table.find({.ino = 8, .dev = 1}) == 3);
}

TEST_CASE("every key is found while the table grows to its capacity and shrinks again") {
  constexpr uint32_t capacity = 50'000;
  KeyTable table(capacity);
  for (uint32_t i = 1; i <= capacity; ++i)
    REQUIRE(table.insert({.ino = uint64_t{i} * 4096, .dev = 1}, i) == i);
  for (uint32_t i = 1; i <= capacity; i += 2)
    REQUIRE(table.erase({.ino = uint64_t{i} * 4096, .dev = 1}, i));
  for (uint32_t i = 1; i <= capacity; ++i)
    REQUIRE(table.find({.ino = uint64_t{i} * 4096, .dev = 1}) == (i % 2 == 0 ? i : 0));
}

TEST_CASE("of threads that insert the same keys exactly one wins each") {
  constexpr uint32_t keys = 5'000;
  constexpr uint32_t threads = 4;
  KeyTable table(keys * threads);
  std::vector<uint32_t> wins(threads);
  std::vector<std::thread> running;
  for (uint32_t t = 0; t < threads; ++t)
    running.emplace_back([&, t] {
      for (uint32_t i = 0; i < keys; ++i) {
        const uint32_t index = t * keys + i + 1;
        if (table.insert({.ino = i, .dev = 0}, index) == index) ++wins[t];
      }
    });
  for (std::thread& thread : running)
    thread.join();
  uint32_t total = 0;
  for (const uint32_t won : wins)
    total += won;
  REQUIRE(total == keys);
}
