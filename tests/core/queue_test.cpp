#include "core/queue.hpp"

#include <algorithm>
#include <array>
#include <deque>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

#include "core/hot_path_guard.hpp"
#include "tests/fake_tree.hpp"

namespace {

struct Item {
  tally::QueueLink<Item> link;
  tally::QueueLink<Item> other_link;
};
using Queue = tally::Queue<Item, &Item::link>;
using OtherQueue = tally::Queue<Item, &Item::other_link>;

}  // namespace

TEST_CASE("an empty queue yields nothing at either end") {
  Queue queue;
  REQUIRE(queue.empty());
  REQUIRE(queue.size() == 0);
  REQUIRE(queue.pop_front() == nullptr);
  REQUIRE(queue.pop_back() == nullptr);
  REQUIRE(queue.size() == 0);
}

TEST_CASE("a queue's only element can be taken from either end or removed, again and again") {
  Queue queue;
  Item item;
  for (int round = 0; round < 3; ++round) {
    queue.push_back(item);
    REQUIRE_FALSE(queue.empty());
    REQUIRE(queue.pop_front() == &item);
    REQUIRE(queue.empty());
    queue.push_front(item);
    REQUIRE(queue.pop_back() == &item);
    REQUIRE(queue.empty());
    queue.push_back(item);
    queue.remove(item);
    REQUIRE(queue.empty());
    REQUIRE(queue.pop_front() == nullptr);
    REQUIRE(queue.pop_back() == nullptr);
  }
}

TEST_CASE("an element can be removed from the front, the middle and the back of a queue") {
  Queue queue;
  std::array<Item, 5> items;
  for (Item& item : items)
    queue.push_back(item);
  queue.remove(items[2]);
  queue.remove(items[0]);
  queue.remove(items[4]);
  REQUIRE(queue.size() == 2);
  REQUIRE(queue.pop_front() == &items[1]);
  REQUIRE(queue.pop_front() == &items[3]);
  REQUIRE(queue.pop_front() == nullptr);
}

TEST_CASE("an element can be in two queues through two links") {
  Queue queue;
  OtherQueue other;
  std::array<Item, 2> items;
  queue.push_back(items[0]);
  queue.push_back(items[1]);
  other.push_front(items[0]);
  other.push_front(items[1]);
  queue.remove(items[0]);
  REQUIRE(queue.pop_front() == &items[1]);
  REQUIRE(other.size() == 2);
  REQUIRE(other.pop_front() == &items[1]);
  REQUIRE(other.pop_front() == &items[0]);
}

TEST_CASE("a queue agrees with a deque through random operations") {
  const uint64_t seed = tally::test::seed_or(1);
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  Queue queue;
  std::vector<Item> items(8);
  std::deque<Item*> expected;
  for (int step = 0; step < 50'000; ++step) {
    Item& item = items[random() % items.size()];
    const auto position = std::find(expected.begin(), expected.end(), &item);
    const uint64_t action = random() % 4;
    if (action == 0) {
      REQUIRE(queue.pop_front() == (expected.empty() ? nullptr : expected.front()));
      if (!expected.empty()) expected.pop_front();
    } else if (action == 1) {
      REQUIRE(queue.pop_back() == (expected.empty() ? nullptr : expected.back()));
      if (!expected.empty()) expected.pop_back();
    } else if (position != expected.end()) {
      queue.remove(item);
      expected.erase(position);
    } else if (action == 2) {
      queue.push_front(item);
      expected.push_front(&item);
    } else {
      queue.push_back(item);
      expected.push_back(&item);
    }
    REQUIRE(queue.size() == expected.size());
    REQUIRE(queue.empty() == expected.empty());
  }
}

TEST_CASE("a queue never allocates") {
  Queue queue;
  std::array<Item, 2> items;
  bool as_expected = true;
  {
    TALLY_HOT_PATH("queue");
    queue.push_back(items[0]);
    queue.push_front(items[1]);
    as_expected = queue.pop_front() == &items[1];
    queue.remove(items[0]);
  }
  REQUIRE(as_expected);
  REQUIRE(queue.empty());
}
