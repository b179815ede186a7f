#pragma once

#include <array>
#include <cstddef>

#include "core/thread_safety.hpp"
#include "fs/inode_table.hpp"

namespace tally::fs {

/// Keep the first contact with an inode apart from changes of names.
///
/// The kernel holds a directory's lock while a request changes its names, but revalidates a name
/// that it remembers by a LOOKUP without that lock. Such a LOOKUP may meet an inode between the
/// lower operation and its account: made and not counted yet, or removed and not discounted yet.
/// What is accounted of an inode at its first contact would then be counted twice, or for ever.
///
/// So a change holds its directories' locks shared from before the lower operation until it is
/// accounted, and a first contact holds its directory's lock exclusively while it looks at the name
/// once more and accounts. Directories share locks (256 stripes). Lock order: before all others.
class NameLocks {
 public:
  /// Held by a change of names in one directory, or in two.
  class Change {
   public:
    Change(NameLocks& locks, const Inode& directory) : Change(locks, directory, directory) {}
    Change(NameLocks& locks, const Inode& one, const Inode& other);
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;
    ~Change();

   private:
    SharedMutex* first_;   // the lower address
    SharedMutex* second_;  // null if it is the same
  };

  /// Held by a first contact with what is named in `directory`.
  [[nodiscard]] SharedMutex& of(const Inode& directory) {
    return locks_[directory.id() % locks_.size()];
  }

 private:
  std::array<SharedMutex, 256> locks_;
};

}  // namespace tally::fs
