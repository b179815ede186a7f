#include "fs/name_locks.hpp"

#include <functional>
#include <utility>

namespace tally::fs {

// The analysis can't follow locks that are chosen at run time.
NameLocks::Change::Change(NameLocks& locks, const Inode& one,
                          const Inode& other) TALLY_NO_THREAD_SAFETY_ANALYSIS
    : first_(&locks.of(one)),
      second_(&locks.of(other)) {
  // In one order, or two changes and the first contacts that wait for them would be a circle.
  if (std::less<>()(second_, first_)) std::swap(first_, second_);
  if (first_ == second_) second_ = nullptr;
  first_->lock_shared();
  if (second_ != nullptr) second_->lock_shared();
}

NameLocks::Change::~Change() TALLY_NO_THREAD_SAFETY_ANALYSIS {
  if (second_ != nullptr) second_->unlock_shared();
  first_->unlock_shared();
}

}  // namespace tally::fs
