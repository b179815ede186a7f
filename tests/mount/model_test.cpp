#include <chrono>
#include <cstdlib>
#include <iostream>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/random_changes.hpp"

using namespace tally::test;

namespace {

/// TALLYFS_STEPS when set, else `fallback`.
int steps_or(int fallback) {
  const char* text = std::getenv("TALLYFS_STEPS");
  return text != nullptr ? std::atoi(text) : fallback;
}

constexpr int steps_between_comparisons = 1000;

}  // namespace

TEST_CASE("random operations on a mount keep every counter of every directory exact") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(std::random_device{}());
  const int steps = steps_or(20'000);
  std::cout << "model test: seed " << seed << ", " << steps << " steps" << std::endl;
  INFO("seed " << seed);
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::hard_links, seed, 200);
  const Mount mount(folders, {.life_max = std::chrono::seconds(120 + steps / 20)});
  RandomChanges changes(mount.at(), seed);

  int succeeded = 0;
  for (int i = 1; i <= steps; ++i) {
    succeeded += changes.step() ? 1 : 0;
    if (i % steps_between_comparisons != 0) continue;
    INFO("after step " << i << ", the last of them: " << changes.last());
    REQUIRE(wrong_counters(mount, Compare::exact_parts) == std::vector<std::string>{});
  }

  CHECK(succeeded > steps / 2);
  changes.close_all();
  check_counters(mount, true);
}

TEST_CASE("random operations from 16 threads at once leave every counter exact") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(std::random_device{}());
  constexpr int thread_count = 16;
  const int steps = steps_or(20'000) / thread_count;
  INFO("seed " << seed);
  const MountFolders folders;
  const Mount mount(folders);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < thread_count; ++i) {
    // In one directory, so that they meet in its counters; the names of the threads collide.
    threads.emplace_back([&, i] {
      RandomChanges changes(mount.at(), seed + i);
      for (int step = 0; step < steps; ++step)
        changes.step();
    });
  }
  for (std::thread& thread : threads)
    thread.join();

  check_counters(mount, true);
  CHECK(counter(mount.at(), "orphan_bytes") == 0);
}

TEST_CASE("a mount made anew counts what the mount before it left") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(7);
  INFO("seed " << seed);
  const MountFolders folders;
  {
    const Mount mount(folders);
    RandomChanges changes(mount.at(), seed);
    for (int step = 0; step < 2000; ++step)
      changes.step();
  }
  // Nobody tells a mount what ext4 allocates late for files that were closed before it.
  sync_filesystem(folders.source());
  const Mount mount(folders);
  check_counters(mount);
}
