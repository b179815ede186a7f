#include "tests/core/accounts_model.hpp"

#include <cstdlib>
#include <random>
#include <string>

#include <catch2/catch.hpp>

namespace {

uint64_t setting(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? std::strtoull(value, nullptr, 10) : otherwise;
}

}  // namespace

TEST_CASE("after any operations every counter of every directory equals a recount") {
  const uint64_t seed = setting("TALLYFS_SEED", std::random_device()());
  const uint64_t steps = setting("TALLYFS_MODEL_STEPS", 100'000);
  // Trees that start anew now and then stay small, so that a recount after every few steps is cheap
  // and a difference is found close to the operation that made it.
  constexpr uint64_t steps_per_tree = 5'000;
  constexpr uint64_t steps_per_recount = 5;
  for (uint64_t done = 0, tree = 0; done < steps; ++tree) {
    INFO("replay with TALLYFS_SEED=" << seed << ", tree " << tree);
    tally::test::AccountsModel model(seed + tree);
    for (uint64_t i = 0; i < steps_per_tree && done < steps; ++i, ++done) {
      model.step();
      if (i % steps_per_recount != 0) continue;
      const std::string difference = model.difference();
      if (!difference.empty()) FAIL(difference);
    }
    REQUIRE(model.difference().empty());
  }
}

TEST_CASE(
    "with room for few hard-linked inodes, what is wrong is suspect, and so is all above it") {
  const uint64_t seed = setting("TALLYFS_SEED", std::random_device()());
  constexpr int trees = 40;
  constexpr int steps_per_tree = 500;
  for (uint64_t tree = 0; tree < trees; ++tree) {
    INFO("replay with TALLYFS_SEED=" << seed << ", tree " << tree);
    tally::test::AccountsModel model(seed + tree, 4);
    for (int i = 0; i < steps_per_tree; ++i) {
      model.step();
      const std::string difference = model.unsuspected_difference();
      if (!difference.empty()) FAIL(difference);
    }
    REQUIRE(model.steps_done() == steps_per_tree);
  }
}
