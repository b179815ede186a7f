#pragma once

#include <span>
#include <string>

#include "core/accounts.hpp"
#include "tests/model/model_tree.hpp"

namespace tally::test {

enum class Strictness {
  everything,      ///< every counter is right, and exactly what has to be suspect is
  unless_suspect,  ///< a directory may be wrong if it is suspect, as all above it then are
};

struct CheckSettings {
  Strictness strictness = Strictness::everything;
  TimeNs latest_ns = 0;  ///< no rctime may be later
};

/// Counts every directory from scratch, from what is in the trees alone, and compares. Several
/// trees are those of threads that work on one Accounts: what they share is counted as the sum.
/// Empty if all is equal, else what differs first. Remembers in the trees what rctime was shown.
std::string first_difference(Accounts& accounts, std::span<ModelTree* const> trees,
                             const CheckSettings& settings);

}  // namespace tally::test
