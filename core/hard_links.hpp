#pragma once

#include <cstdint>

#include "core/dir_tree.hpp"
#include "core/file_stat.hpp"
#include "core/key_table.hpp"
#include "core/mapping.hpp"
#include "core/node_pool.hpp"
#include "core/thread_safety.hpp"

namespace tally {

struct LinkTag;
/// A non-directory inode that has, or had, more than one name. Null: none.
using LinkIndex = PoolIndex<LinkTag>;

/// Inodes with several names, and in which directories these are, so that such an inode counts once
/// in every directory that has at least one of its names below, and its blocks count as unique where
/// all of its names are below.
///
/// How a change is applied: a walk from every name to the root collects, for each directory met, how
/// many names are below it before and after the change; each such directory then gets exactly the
/// difference, in one step, so that no reader ever sees an inode missing for a moment. The cost is
/// the number of distinct directories with a name times their depth.
///
/// Thread-safe: one mutex, taken after the inode's lock and before the tree's. Allocates nothing after
/// construction.
class HardLinks {
 public:
  /// Room for `inodes_max` inodes. Throws std::bad_alloc.
  HardLinks(DirTree& tree, uint32_t inodes_max);

  [[nodiscard]] LinkIndex find(const FileKey& key) const { return {keys_.find(key)}; }

  /// For the scanner: records a name, and counts it in nothing but the list of its directory;
  /// fold() does the rest. ENOSPC when the room is used up.
  Status add_scanned_name(DirIndex dir, const FileStat& stat) TALLY_EXCLUDES(mutex_);

  /// Counts all that add_scanned_name() recorded. Once, after the scan's workers have ended.
  void fold() TALLY_EXCLUDES(mutex_);

  /// Takes over an inode that is counted in `dir` as having one name. No counter changes but
  /// uniqueness, by `now.nlink`. ENOSPC when the room is used up.
  Result<LinkIndex> adopt(DirIndex dir, const FileStat& accounted) TALLY_EXCLUDES(mutex_);

  /// What is counted at present, with the links' own nlink.
  [[nodiscard]] FileStat accounted(LinkIndex link) const TALLY_EXCLUDES(mutex_);

  /// The inode is now as observed and has one name more in `dir`.
  void add_name(LinkIndex link, DirIndex dir, const FileStat& now) TALLY_EXCLUDES(mutex_);

  /// One name less in `dir`. Returns how many names are left in the tree.
  uint32_t remove_name(LinkIndex link, DirIndex dir, const FileStat& now) TALLY_EXCLUDES(mutex_);

  void move_name(LinkIndex link, DirIndex from, DirIndex to, const FileStat& now)
      TALLY_EXCLUDES(mutex_);

  /// Size, blocks, nlink or attributes are now as observed.
  void reconcile(LinkIndex link, const FileStat& now) TALLY_EXCLUDES(mutex_);

  /// Ends the tracking of an inode with at most one name in the tree, without a change of any counter.
  /// Returns the directory of that name, null if there is none.
  DirIndex drop(LinkIndex link) TALLY_EXCLUDES(mutex_);

  /// Moves a directory with its whole subtree below `to`; all counters of all ancestors follow.
  void move_directory(DirIndex dir, DirIndex to, TimeNs ctime_ns) TALLY_EXCLUDES(mutex_);

  [[nodiscard]] uint32_t size() const { return links_.size(); }
};

}  // namespace tally
