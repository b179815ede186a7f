#include "core/name_arena.hpp"

#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"

using namespace tally;

TEST_CASE("an arena gives names back byte for byte, of any length and with any bytes") {
  NameArena arena(1 << 20);
  NameArena::Writer writer(arena);
  std::vector<std::pair<NameRef, std::string>> stored;
  for (std::size_t length = 1; length <= 255; ++length) {
    std::string name(length, static_cast<char>(length));
    name.back() = '\xff';
    const auto ref = writer.store(name);
    REQUIRE(ref);
    CHECK(ref->value != 0);
    stored.emplace_back(*ref, name);
  }
  for (const auto& [ref, name] : stored)
    CHECK(arena.text(ref) == name);
  CHECK(arena.blocks_in_use() == 9);  // 255 names of 1 … 255 bytes and their NULs, rounded up
}

TEST_CASE("a block returns when its last name is released and is used again") {
  NameArena arena(3 * NameArena::bytes_per_block);
  NameArena::Writer writer(arena);
  const std::string name(1000, 'n');
  std::vector<NameRef> names;
  for (int i = 0; i < 12; ++i)
    names.push_back(writer.store(name).value());
  CHECK(arena.blocks_in_use() == 3);
  CHECK(writer.store(name).error() == Errno{ENOSPC});

  // Four names to a block: the second block becomes free with the last of its four, not before.
  for (const std::size_t i : {4u, 5u, 6u})
    arena.release(names[i]);
  CHECK(writer.store(name).error() == Errno{ENOSPC});
  arena.release(names[7]);
  CHECK(arena.text(writer.store(name).value()) == name);
  CHECK(arena.text(names[0]) == name);
}

TEST_CASE("a writer fills its own block again when nothing in it is in use") {
  NameArena arena(NameArena::bytes_per_block);
  NameArena::Writer writer(arena);
  for (int i = 0; i < 10'000; ++i)
    arena.release(writer.store("short-lived " + std::to_string(i)).value());
  CHECK(arena.blocks_in_use() == 1);
}

TEST_CASE("a writer that ends leaves its names valid and its empty block to others") {
  NameArena arena(NameArena::bytes_per_block);
  NameRef name;
  {
    NameArena::Writer writer(arena);
    name = writer.store("kept").value();
  }
  CHECK(arena.text(name) == std::string("kept"));
  CHECK(arena.blocks_in_use() == 1);
  arena.release(name);
  CHECK(arena.blocks_in_use() == 0);
  NameArena::Writer other(arena);
  CHECK(other.store("again"));
}

TEST_CASE("a name longer than a block is refused") {
  NameArena arena(1 << 20);
  NameArena::Writer writer(arena);
  CHECK(writer.store(std::string(NameArena::bytes_per_block, 'n')).error() == Errno{ENAMETOOLONG});
  CHECK(arena.blocks_in_use() == 0);
}

TEST_CASE("threads store and release names in one arena, also each other's, and lose no block") {
  const uint64_t seed = test::seed_or(21);
  INFO("seed " << seed);
  constexpr int thread_count = 4;
  NameArena arena(8 << 20);
  std::atomic<int> wrong = 0;
  std::vector<NameRef> leftover[thread_count];
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < thread_count; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937_64 random(seed + static_cast<uint64_t>(t));
        NameArena::Writer writer(arena);
        std::vector<std::pair<NameRef, std::string>> mine;
        for (int i = 0; i < 20'000; ++i) {
          if (mine.size() < 200 && random() % 3 != 0) {
            const std::string name(1 + random() % 255, static_cast<char>('a' + t));
            const auto stored = writer.store(name);
            if (!stored)
              ++wrong;
            else
              mine.emplace_back(*stored, name);
          } else if (!mine.empty()) {
            const std::size_t victim = random() % mine.size();
            if (arena.text(mine[victim].first) != mine[victim].second) ++wrong;
            arena.release(mine[victim].first);
            mine[victim] = mine.back();
            mine.pop_back();
          }
        }
        for (const auto& [ref, name] : mine)
          leftover[t].push_back(ref);
      });
    }
  }
  CHECK(wrong == 0);
  CHECK(arena.blocks_in_use() > 0);
  for (const auto& names : leftover)
    for (const NameRef name : names)
      arena.release(name);
  CHECK(arena.blocks_in_use() == 0);
}
