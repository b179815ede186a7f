#include "core/scan_schedule.hpp"

#include <array>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"

using namespace tally;
using namespace tally::test;

namespace {

ScanChain chain_of(ScanStates& states, uint32_t first, uint32_t count) {
  ScanChain chain;
  for (uint32_t i = first; i < first + count; ++i) {
    states[i].descriptor = ScanState::not_opened;
    chain.push_top(states, {i});
  }
  return chain;
}

std::vector<uint32_t> values(std::span<const DirIndex> dirs) {
  std::vector<uint32_t> result;
  for (const DirIndex dir : dirs)
    result.push_back(dir.value);
  return result;
}

using Values = std::vector<uint32_t>;

}  // namespace

TEST_CASE("a scan queue gives back the newest first, in batches") {
  ScanStates states(100);
  ScanQueue queue;
  std::array<DirIndex, 4> room;
  CHECK(queue.empty());
  CHECK(queue.take(states, room).empty());
  CHECK(queue.push(states, chain_of(states, 1, 3)) == 3);
  CHECK(queue.push(states, chain_of(states, 4, 3)) == 6);
  CHECK(values(queue.take(states, room)) == Values{6, 5, 4, 3});
  CHECK_FALSE(queue.empty());
  CHECK(queue.push(states, chain_of(states, 7, 1)) == 3);
  CHECK(values(queue.take(states, room)) == Values{7, 2, 1});
  CHECK(queue.empty());
}

TEST_CASE("a directory that is open already is taken alone, and ends a batch of others") {
  ScanStates states(100);
  ScanQueue queue;
  std::array<DirIndex, 4> room;
  queue.push(states, chain_of(states, 1, 5));
  states[3].descriptor = 10;
  CHECK(values(queue.take(states, room)) == Values{5, 4});
  CHECK(values(queue.take(states, room)) == Values{3});
  CHECK(values(queue.take(states, room)) == Values{2, 1});
}

TEST_CASE("a thief gets the older half, rounded up, in order, and the victim keeps the rest") {
  ScanStates states(1000);
  ScanQueue victim;
  ScanQueue thief;
  std::array<DirIndex, 8> room;
  CHECK(victim.steal_half(states).count == 0);
  victim.push(states, chain_of(states, 1, 7));
  const ScanChain loot = victim.steal_half(states);
  CHECK(loot.count == 4);
  thief.push(states, chain_of(states, 8, 1));
  thief.push(states, loot);
  CHECK(values(thief.take(states, room)) == Values{4, 3, 2, 1, 8});
  CHECK(values(victim.take(states, room)) == Values{7, 6, 5});

  victim.push(states, chain_of(states, 1, 1));
  CHECK(victim.steal_half(states).count == 1);
  CHECK(victim.empty());
  victim.push(states, chain_of(states, 1, 999));
  CHECK(victim.steal_half(states).count == ScanQueue::steal_max);
}

TEST_CASE(
    "workers take every directory once, however it came up, sleep when there is none, and end") {
  const uint64_t seed = seed_or(41);
  INFO("seed " << seed);
  constexpr uint32_t directories_max = 20'000;
  for (const unsigned worker_count : {1u, 2u, 8u}) {
    for (uint64_t round = 0; round < 10; ++round) {
      INFO("workers " << worker_count << ", round " << round);
      ScanStates states(directories_max + 1);
      ScanSchedule schedule(states, worker_count);
      std::vector<std::atomic<int>> times_taken(directories_max + 1);
      std::atomic<uint32_t> made = 50;
      const auto work = [&](unsigned number) {
        std::mt19937_64 random(seed + round * 100 + number);
        std::array<DirIndex, 4> room;
        do {
          while (true) {
            const auto taken = schedule.take(number, room);
            if (taken.empty()) break;
            // All but the first go back "opened", as the scanner does it.
            for (const DirIndex dir : taken)
              states[dir.value].descriptor = 0;
            schedule.put_back(number, taken.subspan(1));
            ++times_taken[taken[0].value];
            // Few children, so that workers often run dry, and sometimes many.
            const auto wanted = static_cast<uint32_t>(random() % 16 == 0 ? 30 : random() % 2);
            const uint32_t first = made.fetch_add(wanted) + 1;
            const uint32_t end = std::min(first + wanted, directories_max + 1);
            if (random() % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
            if (first < end)
              schedule.add(number, chain_of(states, first, end - first),
                           random() % 2 == 0 ? ScanSchedule::Caller::reads_on
                                             : ScanSchedule::Caller::takes_next);
            schedule.done();
          }
        } while (schedule.wait());
      };
      schedule.add(0, chain_of(states, 1, 50), ScanSchedule::Caller::takes_next);
      {
        std::vector<std::jthread> threads;
        for (unsigned number = 0; number < worker_count; ++number)
          threads.emplace_back(work, number);
      }
      const uint32_t made_at_last = std::min(made.load(), directories_max);
      uint32_t wrong = 0;
      for (uint32_t i = 1; i <= directories_max; ++i)
        if (times_taken[i] != (i <= made_at_last ? 1 : 0)) ++wrong;
      REQUIRE(wrong == 0);
    }
  }
}

TEST_CASE("a worker that has nothing takes from another") {
  ScanStates states(100);
  ScanSchedule schedule(states, 3);
  std::array<DirIndex, 8> room;
  schedule.add(0, chain_of(states, 1, 4), ScanSchedule::Caller::takes_next);
  CHECK(values(schedule.take(2, room)) == Values{2, 1});
  CHECK(values(schedule.take(1, room)) == Values{3});
  CHECK(values(schedule.take(0, room)) == Values{4});
  CHECK(schedule.take(0, room).empty());
}

TEST_CASE("a worker that sleeps is woken by work that another leaves it") {
  for (int round = 0; round < 200; ++round) {
    ScanStates states(100);
    ScanSchedule schedule(states, 2);
    schedule.add(0, chain_of(states, 1, 1), ScanSchedule::Caller::takes_next);
    std::array<DirIndex, 1> room;
    REQUIRE(schedule.take(0, room).size() == 1);
    // Directory 1 stays in the hands of worker 0 until worker 1 has got another: no end wakes it.
    std::atomic<bool> got_one = false;
    std::jthread thief([&] {
      std::array<DirIndex, 1> loot;
      while (schedule.take(1, loot).empty())
        if (!schedule.wait()) return;
      schedule.done();
      got_one = true;
      got_one.notify_one();
    });
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
    schedule.add(0, chain_of(states, 2, 1), ScanSchedule::Caller::reads_on);
    got_one.wait(false);
    schedule.done();
    CHECK_FALSE(schedule.wait());
  }
}
