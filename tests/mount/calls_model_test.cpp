#include <iostream>
#include <random>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/calls_run.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/uring_enabled.hpp"

using namespace tally::test;

namespace {

// 50,000 calls by default on each filesystem in each mode, half of them by one thread and half by
// 16 at once; sanitizers are ten times slower.
#ifdef TALLYFS_SANITIZED
constexpr uint64_t steps_per_case = 2'500;
#else
constexpr uint64_t steps_per_case = 25'000;
#endif

void run_and_check(LowerKind lower, const char* options, unsigned threads) {
  if (!can_mount_lower(lower) || !can_mount()) return;
  const CallsRun run{.lower = lower,
                     .options = options,
                     .seed = seed_or(std::random_device{}()),
                     .steps = steps_per_case,
                     .threads = threads};
  std::cout << "mount_model --filesystem " << lower << " --options " << options << " --seed "
            << run.seed << " --steps " << run.steps << " --threads " << threads << std::endl;
  INFO("seed " << run.seed);
  const CallsResult result = run_calls(run);
  if (result.failure) FAIL(result.failure->script());
  CHECK(result.steps >= run.steps);
  CHECK(result.succeeded > run.steps / 2);
}

}  // namespace

#define CALLS_MODEL_CASES(lower, io)                                                             \
  TEST_CASE("random calls on " #lower " leave every counter exact (io=" #io ")") {               \
    run_and_check(LowerKind::lower, "io=" #io, 1);                                               \
  }                                                                                              \
  TEST_CASE("random calls of 16 threads on " #lower " leave every counter exact (io=" #io ")") { \
    run_and_check(LowerKind::lower, "io=" #io, 16);                                              \
  }

CALLS_MODEL_CASES(ext4, direct)
CALLS_MODEL_CASES(ext4, buffered)
CALLS_MODEL_CASES(xfs, direct)
CALLS_MODEL_CASES(xfs, buffered)
CALLS_MODEL_CASES(btrfs, direct)
CALLS_MODEL_CASES(btrfs, buffered)
CALLS_MODEL_CASES(tmpfs, direct)
CALLS_MODEL_CASES(tmpfs, buffered)

// One case: what switches io_uring on keeps others waiting.
TEST_CASE("random calls over io_uring leave every counter exact") {
  if (!can_mount()) return;
  const UringEnabled enabled;
  if (!can_use(enabled)) return;
  run_and_check(LowerKind::ext4, "uring=on,io=direct", 4);
  run_and_check(LowerKind::tmpfs, "uring=on,io=buffered", 1);
}

TEST_CASE("a change that the mount is not told is found and shrunk to a script of few calls") {
  if (!can_mount_lower(LowerKind::tmpfs) || !can_mount()) return;
  CallsRun run{
      .lower = LowerKind::tmpfs, .seed = 3, .steps = 5'000, .fault = CallFault::append_behind};
  const CallsResult result = run_calls(run);
  REQUIRE(result.failure);
  INFO(result.failure->script());
  CHECK(result.failure->operations_found > 5);
  CHECK(result.failure->operations.size() <= 3);
  // The script finds it again, and finds nothing where there is no fault.
  CHECK(replay_calls(run, result.failure->script()));
  run.fault = CallFault::none;
  CHECK_FALSE(replay_calls(run, result.failure->script()));
}
