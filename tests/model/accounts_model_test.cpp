#include <cstdlib>
#include <iostream>
#include <random>

#include <catch2/catch.hpp>

#include "tests/model/accounts_run.hpp"

using namespace tally::test;

namespace {

// A million steps by default, in four cases that run side by side; sanitizers are ten times slower.
#ifdef TALLYFS_SANITIZED
constexpr uint64_t steps_per_case = 25'000;
#else
constexpr uint64_t steps_per_case = 250'000;
#endif

uint64_t setting(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? std::strtoull(value, nullptr, 10) : otherwise;
}

AccountsRun run_of_default_size(unsigned threads) {
  return {.seed = setting("TALLYFS_SEED", std::random_device()()),
          .steps = setting("TALLYFS_MODEL_STEPS", steps_per_case),
          .threads = threads};
}

void check(const AccountsRun& run, const AccountsResult& result, const char* more = "") {
  const std::string command = "accounts_model --seed " + std::to_string(run.seed) + " --steps " +
                              std::to_string(run.steps) + " --threads " +
                              std::to_string(run.threads) + more;
  std::cout << command << ": " << result.recounts << " recounts" << std::endl;
  INFO(command);
  if (result.failure) FAIL(result.failure->message << '\n' << result.failure->script());
  CHECK(result.steps >= run.steps);
  CHECK(result.effective_steps > run.steps * 3 / 4);
}

void run_and_check() {
  const AccountsRun run = run_of_default_size(1);
  check(run, run_accounts(run));
}

}  // namespace

TEST_CASE("after any operations every counter of every directory equals a recount (1 of 3)") {
  run_and_check();
}
TEST_CASE("after any operations every counter of every directory equals a recount (2 of 3)") {
  run_and_check();
}
TEST_CASE("after any operations every counter of every directory equals a recount (3 of 3)") {
  run_and_check();
}

TEST_CASE("operations of several threads on one tree leave every counter equal to a recount") {
  const AccountsRun run = run_of_default_size(4);
  check(run, run_accounts_on_one_tree(run), " --one-tree");
}

TEST_CASE("a fault in what the accounts are told is found and shrunk to a script of few lines") {
  const auto [fault, operations_max] =
      GENERATE(std::pair(Fault::overwrite_not_told, 4U), std::pair(Fault::growth_not_told, 2U));
  const AccountsRun run{.seed = 1, .steps = 50'000, .threads = 2, .fault = fault};
  const AccountsResult result = run_accounts(run);
  REQUIRE(result.failure);
  INFO(result.failure->script());
  CHECK(result.failure->operations_found > 5);
  CHECK(result.failure->operations.size() <= operations_max);
  // The script finds it again, and finds nothing where there is no fault.
  const auto replayed = replay_accounts(result.failure->script(), fault);
  REQUIRE(replayed);
  CHECK(replayed->message == result.failure->message);
  CHECK_FALSE(replay_accounts(result.failure->script(), Fault::none));
}

TEST_CASE("one seed finds the same whatever the number of threads") {
  AccountsRun run{.seed = 2, .steps = 50'000, .threads = 1, .fault = Fault::overwrite_not_told};
  const AccountsResult alone = run_accounts(run);
  run.threads = 3;
  const AccountsResult together = run_accounts(run);
  REQUIRE(alone.failure);
  REQUIRE(together.failure);
  CHECK(alone.failure->script() == together.failure->script());
}

TEST_CASE("a script without room for what it does finds that mkdir is refused in time") {
  // The accounts refuse the second directory, before it is made: that is no difference.
  CHECK_FALSE(replay_accounts("room 2 1\nmkdir d1 d0\nmkdir d2 d0\n", Fault::none));
  CHECK_THROWS_AS(replay_accounts("room 0 1\nmkdir d1 d0\n", Fault::none), std::invalid_argument);
}

TEST_CASE("what the model once found stays right") {
  std::string directories_come_and_go;
  for (int i = 10; i < 30; ++i)
    directories_come_and_go += "mkdir d" + std::to_string(i) + " d0\n";
  for (int i = 10; i < 30; ++i)
    directories_come_and_go += "rmdir d" + std::to_string(i) + "\n";
  const std::string scripts[] = {
      // A name was removed where it was not counted, and a recount added what had not been taken.
      "mkdir d1 d0\ncreate n0 d0 0 0\nlink n1 n0 d0\nbehind-rename n1 d1\nunlink n1\naudit\n",
      // A file gone behind our back was counted in the directory that got the node of its own one.
      "mkdir d1 d0\ncreate n0 d1 100 8\nopen h0 n0\nbehind-unlink n0\naudit\nrmdir d1\n" +
          directories_come_and_go + "mkdir d2 d0\nmkdir d3 d0\nwrite-open h0 500 16\n",
      // The last name of an open file was removed from a directory that is not counted.
      "mkdir d7 d0\nmkdir d86 d0\ncreate n1 d0 568987 0\nmove-dir d86 d7\nopen h0 n1\n"
      "behind-move-dir d86 d0\nrmdir d7\nmkdir d102 d86\nbehind-rename n1 d102\nunlink n1\n",
      // A file was followed that had been counted in a directory that was gone.
      R"(mkdir d12 d0
mkdir d18 d0
mkdir d19 d0
mkdir d20 d0
mkdir d21 d0
mkdir d24 d0
behind-mkdir d29 d0
move-dir d24 d29
mkdir d34 d12
mkdir d35 d18
exchange-dirs d18 d24
move-dir d12 d21
create n262 d18 0 0
move-dir d21 d35
behind-move-dir d18 d0
mkdir d47 d12
remove-behind d29
link n0 n262 d0
audit
rmdir d19
remove-behind d20
mkdir d54 d12
mkdir d55 d12
mkdir d56 d12
move-dir d24 d12
behind-remove-dir d35
audit
mkdir d61 d0
)",
  };
  for (const std::string& script : scripts) {
    INFO(script);
    const auto failure = replay_accounts(script, Fault::none);
    CHECK((failure ? failure->message : "") == "");
  }
}
