#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/mount/lower_filesystem.hpp"
#include "tests/mount/system_calls.hpp"

namespace tally::test {

/// Random system calls on mounts of TallyFS over one kind of filesystem.
struct CallsRun {
  LowerKind lower = LowerKind::tmpfs;
  std::string options = "io=direct";  ///< of the mount
  uint64_t seed = 0;
  uint64_t steps = 0;
  unsigned threads = 1;
  CallFault fault = CallFault::none;
  /// How long a failure may be shrunk: each trial takes a mount of its own.
  std::chrono::seconds shrink_limit{180};
};

/// What went wrong, and the calls that lead there: none if several threads made them.
struct CallsFailure {
  uint64_t round = 0;
  std::vector<Operation> operations;
  std::size_t operations_found = 0;  ///< before shrinking
  std::string message;

  /// A script that replay_calls() understands, with comments on how it was found.
  [[nodiscard]] std::string script() const;
};

struct CallsResult {
  uint64_t steps = 0;
  uint64_t succeeded = 0;  ///< calls that did not fail
  uint64_t rounds = 0;
  uint64_t comparisons = 0;
  double seconds = 0;
  std::optional<CallsFailure> failure;
};

/// Runs rounds, each on a new mount over an empty directory: after every thousand calls the threads
/// stop, and every counter of every directory is compared with a naive recount of the lower
/// filesystem. Threads have names of their own in directories that they share. A failure ends the
/// run; if one thread made it, its calls are shrunk on fresh mounts.
CallsResult run_calls(const CallsRun& run);

/// Makes the calls of a script on a fresh mount and compares. Nothing if all is well. Throws
/// std::invalid_argument for what is no script.
std::optional<CallsFailure> replay_calls(const CallsRun& run, const std::string& script);

}  // namespace tally::test
