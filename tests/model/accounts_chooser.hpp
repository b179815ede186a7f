#pragma once

#include <cstdint>

#include "tests/model/accounts_model.hpp"
#include "tests/model/random.hpp"

namespace tally::test {

/// Chooses operations at random, such that most find what they need in the model's tree.
/// Deterministic from the seed and what it sees there.
class AccountsChooser {
 public:
  struct Limits {
    uint32_t names = 40;
    uint32_t dirs = 12;
    bool removals_behind = false;  ///< after which directories are suspect
    bool changes_behind = false;   ///< of all kinds, and audits
    bool future_times = false;
    bool scans = false;
  };

  AccountsChooser(uint64_t seed, const Limits& limits) : random_(seed), limits_(limits) {}

  Operation next(const ModelTree& tree);

 private:
  uint32_t below(uint64_t bound) { return random_.below(bound); }
  Change change(const ModelTree& tree);
  uint32_t any(const NumberSet& set) {
    return set.empty() ? ModelTree::none : set.numbers()[below(set.size())];
  }
  uint32_t empty_dir(const ModelTree& tree);
  uint32_t size() { return below(3) == 0 ? 0 : below(1 << 20); }
  uint32_t blocks() { return 8 * below(300); }

  Random random_;
  const Limits limits_;
};

}  // namespace tally::test
