#include "core/ring_buffer.hpp"

#include <atomic>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "core/hot_path_guard.hpp"
#include "tests/fake_tree.hpp"

using tally::RingBuffer;

TEST_CASE("the capacity of a ring buffer must be a power of two from 2") {
  for (const uint32_t capacity : {0U, 1U, 3U, 12U, 4095U})
    REQUIRE_THROWS_AS(RingBuffer<int>(capacity), std::invalid_argument);
  REQUIRE(RingBuffer<int>(2).capacity() == 2);
  REQUIRE(RingBuffer<int>(4096).capacity() == 4096);
}

TEST_CASE("an empty ring buffer yields nothing and leaves the target untouched") {
  RingBuffer<int> ring(4);
  int value = 17;
  REQUIRE_FALSE(ring.try_pop(value));
  REQUIRE(ring.try_push(1));
  REQUIRE(ring.try_pop(value));
  REQUIRE(value == 1);
  REQUIRE_FALSE(ring.try_pop(value));
  REQUIRE(value == 1);
}

TEST_CASE("a full ring buffer refuses a value and takes one again after a pop") {
  RingBuffer<int> ring(4);
  for (int i = 0; i < 4; ++i)
    REQUIRE(ring.try_push(i));
  REQUIRE_FALSE(ring.try_push(99));
  int value = -1;
  REQUIRE(ring.try_pop(value));
  REQUIRE(value == 0);
  REQUIRE(ring.try_push(4));
  REQUIRE_FALSE(ring.try_push(99));
  for (int expected = 1; expected <= 4; ++expected) {
    REQUIRE(ring.try_pop(value));
    REQUIRE(value == expected);
  }
  REQUIRE_FALSE(ring.try_pop(value));
}

TEST_CASE("a ring buffer agrees with a queue through thousands of laps") {
  const uint64_t seed = tally::test::seed_or(1);
  const uint32_t capacity = GENERATE(2U, 8U);
  INFO("seed " << seed << ", capacity " << capacity);
  std::mt19937_64 random(seed);
  RingBuffer<uint64_t> ring(capacity);
  std::deque<uint64_t> expected;
  for (uint64_t step = 0; step < 50'000; ++step) {
    if (random() % 2 == 0) {
      const bool pushed = ring.try_push(step);
      REQUIRE(pushed == (expected.size() < capacity));
      if (pushed) expected.push_back(step);
    } else {
      uint64_t value = 0;
      const bool popped = ring.try_pop(value);
      REQUIRE(popped == !expected.empty());
      if (!popped) continue;
      REQUIRE(value == expected.front());
      expected.pop_front();
    }
  }
}

TEST_CASE("what threads push into a ring buffer comes out once and in each producer's order") {
  struct Event {
    uint32_t producer;
    uint32_t number;
    uint64_t check;  // a torn or stale copy would not match
  };
  constexpr uint32_t producers = 3;
  constexpr uint32_t consumers = 3;
  constexpr uint32_t events_per_producer = 30'000;
  RingBuffer<Event> ring(16);
  std::atomic<uint32_t> popped = 0;
  std::atomic<int> torn = 0;
  std::atomic<int> out_of_order = 0;
  std::vector<std::atomic<uint8_t>> times_seen(producers * events_per_producer);
  {
    std::vector<std::jthread> threads;
    for (uint32_t producer = 0; producer < producers; ++producer) {
      threads.emplace_back([&, producer] {
        for (uint32_t i = 0; i < events_per_producer; ++i)
          while (!ring.try_push({producer, i, ~(uint64_t{producer} << 32 | i)}))
            std::this_thread::yield();
      });
    }
    for (uint32_t consumer = 0; consumer < consumers; ++consumer) {
      threads.emplace_back([&] {
        std::vector<int64_t> last_number(producers, -1);
        while (popped < producers * events_per_producer) {
          Event event;
          if (!ring.try_pop(event)) {
            std::this_thread::yield();
            continue;
          }
          ++popped;
          if (event.check != ~(uint64_t{event.producer} << 32 | event.number)) {
            ++torn;
            continue;
          }
          if (event.number <= last_number[event.producer]) ++out_of_order;
          last_number[event.producer] = event.number;
          ++times_seen[event.producer * events_per_producer + event.number];
        }
      });
    }
  }
  REQUIRE(torn == 0);
  REQUIRE(out_of_order == 0);
  std::size_t seen_once = 0;
  for (const auto& times : times_seen)
    if (times == 1) ++seen_once;
  REQUIRE(seen_once == times_seen.size());
}

TEST_CASE("a ring buffer allocates nothing after construction") {
  RingBuffer<int> ring(2);
  int value = 0;
  bool as_expected = true;
  {
    TALLY_HOT_PATH("ring buffer");
    as_expected = !ring.try_pop(value) && ring.try_push(1) && ring.try_push(2) &&
                  !ring.try_push(3) && ring.try_pop(value);
  }
  REQUIRE(as_expected);
  REQUIRE(value == 1);
}
