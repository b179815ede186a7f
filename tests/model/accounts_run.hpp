#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/model/accounts_model.hpp"

namespace tally::test {

/// What went wrong, and the operations that lead there.
struct AccountsFailure {
  ModelRoom room;
  uint64_t round = 0;
  std::vector<Operation> operations;
  std::size_t operations_found = 0;  ///< before shrinking
  std::string message;

  /// A script that replay_accounts() understands, with comments on how it was found.
  [[nodiscard]] std::string script() const;
};

struct AccountsRun {
  uint64_t seed = 0;
  uint64_t steps = 0;
  unsigned threads = 1;
  Fault fault = Fault::none;
};

struct AccountsResult {
  uint64_t steps = 0;
  uint64_t effective_steps = 0;  ///< that did anything
  uint64_t rounds = 0;
  uint64_t recounts = 0;
  double seconds = 0;
  std::optional<AccountsFailure> failure;
};

/// Runs rounds: each has a tree of its own, whose size and what may happen to it follow from the
/// seed and the number of the round. With several threads each runs whole rounds, so that the seed
/// alone decides what is found. A failure is shrunk and ends the run.
AccountsResult run_accounts(const AccountsRun& run);

/// The same by threads that work on one tree at the same time, in files and directories of their
/// own below directories that all share; compared when all have done some thousand steps. What is
/// found is not shrunk: it hangs on the schedule.
AccountsResult run_accounts_on_one_tree(const AccountsRun& run);

/// Does what a script says, with a recount after every operation. Nothing if all is well, else what
/// is wrong after which. Throws std::invalid_argument for what is no script.
std::optional<AccountsFailure> replay_accounts(const std::string& script, Fault fault);

}  // namespace tally::test
