#pragma once

#include <atomic>
#include <cstddef>
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
/// in every directory that has at least one of its names below, and its blocks count as unique
/// where all of its names are below.
///
/// How a change is applied: a walk from every name to the root collects, for each directory met,
/// how many names are below it before and after the change; each such directory then gets exactly
/// the difference, in one step, so that no reader ever sees an inode missing for a moment. The cost
/// is the number of distinct directories with a name times their depth.
///
/// Thread-safe: one mutex, taken after the inode's lock and before the tree's. Allocates nothing
/// after construction.
class HardLinks {
 public:
  /// How many directories with names of it each inode may have on average. A farm of snapshots has
  /// many more names than inodes; address space is all this costs.
  static constexpr uint32_t names_per_inode = 16;

  // What each takes: an inode, its names in one directory, a directory met on the way up.
  static constexpr std::size_t link_bytes = 48;
  static constexpr std::size_t name_bytes = 28;
  static constexpr std::size_t visit_bytes = 64;

  /// Room for `inodes_max` inodes. Throws std::bad_alloc.
  HardLinks(DirTree& tree, uint32_t inodes_max);

  [[nodiscard]] LinkIndex find(const FileKey& key) const { return {keys_.find(key)}; }

  /// What is counted of the inode at present: size, blocks, nlink and ctime.
  [[nodiscard]] FileStat counted(LinkIndex link) TALLY_EXCLUDES(mutex_);

  /// Whether to search for names of inodes that were not asked about before. They have more than
  /// are recorded, and never were all recorded; one of them may have been met while it was the only
  /// one, and be counted as that. What has not changed since `since` has its other names elsewhere:
  /// that is for the first call after a scan. Looks at all inodes if there may be a new one.
  [[nodiscard]] bool has_names_to_search(TimeNs since = 0) TALLY_EXCLUDES(mutex_);

  /// For the scanner: records a name and counts it nowhere; fold() does that. The caller counts it
  /// in the directory's own `files`. ENOSPC when the room is used up.
  Status add_scanned_name(DirIndex dir, const FileStat& stat) TALLY_EXCLUDES(mutex_);

  /// Counts all that add_scanned_name() recorded. Once, after the scan's workers have ended.
  void fold() TALLY_EXCLUDES(mutex_);

  /// Takes over an inode that is counted at `place` as an inode with one name; `counted` is what of
  /// it is counted. No recursive counter changes. ENOSPC when the room is used up, ESTALE if the
  /// place is stale.
  Result<LinkIndex> adopt(FilePlace place, const FileStat& counted) TALLY_EXCLUDES(mutex_);

  /// Gives an inode with exactly one name back to be counted as such at the place returned; or,
  /// with no name left in the tree, to be counted nowhere (null). No recursive counter changes.
  FilePlace drop(LinkIndex link) TALLY_EXCLUDES(mutex_);

  /// The inode is now as observed, and has one name more in `dir`.
  void add_name(LinkIndex link, DirIndex dir, const FileStat& now) TALLY_EXCLUDES(mutex_);

  /// The inode is now as observed, and has one name less in `dir`. Returns how many are left in the
  /// tree. A name that was never counted marks the directory suspect.
  uint32_t remove_name(LinkIndex link, DirIndex dir, const FileStat& now) TALLY_EXCLUDES(mutex_);

  /// One of the inode's names moved from one directory to another.
  void move_name(LinkIndex link, DirIndex from, DirIndex to, const FileStat& now)
      TALLY_EXCLUDES(mutex_);

  /// The inode's size, blocks, nlink or attributes are now as observed.
  void reconcile(LinkIndex link, const FileStat& now) TALLY_EXCLUDES(mutex_);

  /// Moves a directory with its whole subtree below `to`; the counters of all ancestors follow.
  void move_directory(DirIndex dir, DirIndex to, TimeNs ctime_ns) TALLY_EXCLUDES(mutex_);

  /// The inode is now as observed, and has no name any more: what is recorded of it went behind our
  /// back, and makes its directories suspect.
  void forget_names_of(LinkIndex link, const FileStat& now) TALLY_EXCLUDES(mutex_);

  /// Takes a directory out of the tree, with all that is still counted in and below it: that went
  /// behind our back, and where to is not known, so the parent becomes suspect. Nothing if the
  /// directory is removed already.
  void remove_directory(DirIndex dir) TALLY_EXCLUDES(mutex_);

  /// The same if `dir` is the directory with this key and DirTree::is_unseen().
  void remove_unseen(DirIndex dir, const FileKey& key) TALLY_EXCLUDES(mutex_);

  // Recount (recount.hpp): names are met one by one, and those that were not are taken out.

  /// DirTree::begin_recount(), and all names in `dir` are to be met from now on.
  Status begin_recount(DirIndex dir) TALLY_EXCLUDES(mutex_);

  /// One more name of the inode in `dir` has been met. False if there are more of them than are
  /// recorded.
  bool meet_name(LinkIndex link, DirIndex dir) TALLY_EXCLUDES(mutex_);

  /// What a recount has not met, or met in addition.
  struct Missed {
    DirTree::Files files;    ///< with one name: what was found less what was counted
    int64_t lost_names = 0;  ///< of hard-linked inodes, which were counted and not found
  };

  /// All names have been met: takes out those that were not, and ends the recount of the rest
  /// (DirTree::end_recount) in one step for everybody who links, renames or unlinks. A directory
  /// with another name of an inode that lost one becomes suspect: its link count was not seen.
  /// Without `complete` the names stay.
  Missed end_recount(DirIndex dir, const DirTree::Files& others, TimeNs ctime_ns, bool complete)
      TALLY_EXCLUDES(mutex_);

  /// Whether `dir`'s recursive counters are what its own files, its children and the hard links
  /// make of them; if not they are now. For a fault of ours: no change of the lower directory can
  /// make them differ. Not looked into (true) with more than `names_max` names of hard-linked
  /// inodes below, since everything waits meanwhile.
  bool verify(DirIndex dir, uint32_t names_max) TALLY_EXCLUDES(mutex_);

  /// How many inodes are tracked.
  [[nodiscard]] uint32_t size() const { return links_.size(); }

 private:
  struct NameTag;
  using NameIndex = PoolIndex<NameTag>;

  /// What is counted of an inode, wherever it is counted.
  struct Counted {
    Bytes size;
    Blocks blocks;
    uint32_t nlink;
  };

  struct Link {
    Counted counted;
    TimeNs ctime_ns;
    NameIndex first_name;
    uint32_t names;    // in the tree
    uint32_t stamp;    // the last for_each_link_below() that met it
    bool is_searched;  // has_names_to_search() has told of it, or need not ever
  };

  /// Names of one inode in one directory. Mostly all of them; but names that a scan finds in turns
  /// with another directory's, as two workers read both, have several of these.
  struct Name {
    LinkIndex link;
    DirIndex dir;
    uint32_t count;
    uint32_t unmet = 0;  // of these, in a recount of `dir`
    NameIndex next_of_link = {};
    NameIndex next_in_dir = {};
    NameIndex previous_in_dir = {};
  };

  /// A directory met on the way up, with the inode's names below it before and after the change.
  struct Visit {
    DirIndex dir;
    int32_t before;
    int32_t after;
    Delta delta;  // of move_directory() only
  };

  static_assert(sizeof(Link) == link_bytes && sizeof(Name) == name_bytes &&
                sizeof(Visit) == visit_bytes);

  void note_unknown_names(Link& inode) TALLY_REQUIRES(mutex_);
  static Counted observed(const FileStat& now);
  static Delta contribution(const Counted& counted, int32_t names_below);

  Result<LinkIndex> create(const FileStat& stat, DirIndex dir) TALLY_REQUIRES(mutex_);
  Status record(LinkIndex link, DirIndex dir) TALLY_REQUIRES(mutex_);
  Status record_anew(LinkIndex link, DirIndex dir) TALLY_REQUIRES(mutex_);
  bool unrecord(LinkIndex link, DirIndex dir) TALLY_REQUIRES(mutex_);
  void unrecord(NameIndex name, uint32_t count) TALLY_REQUIRES(mutex_);
  void link_into_dir(NameIndex name) TALLY_REQUIRES(mutex_);
  void unlink_from_dir(NameIndex name) TALLY_REQUIRES(mutex_);

  Visit& visit(DirIndex dir) TALLY_REQUIRES(mutex_);
  void visit_upwards(DirIndex dir, int32_t before, int32_t after) TALLY_REQUIRES(mutex_);
  void visit_names(LinkIndex link) TALLY_REQUIRES(mutex_);
  void gain_name(LinkIndex link, DirIndex dir) TALLY_REQUIRES(mutex_)
      TALLY_REQUIRES_SHARED(tree_.lock());
  void lose_name(LinkIndex link, DirIndex dir) TALLY_REQUIRES(mutex_)
      TALLY_REQUIRES_SHARED(tree_.lock());
  void settle(LinkIndex link, const FileStat& now) TALLY_REQUIRES(mutex_)
      TALLY_REQUIRES_SHARED(tree_.lock());
  template <class Wanted>
  [[nodiscard]] NameIndex find_name(LinkIndex link, DirIndex dir, Wanted wanted)
      TALLY_REQUIRES(mutex_);
  [[nodiscard]] FileStat counted_stat(LinkIndex link) TALLY_REQUIRES(mutex_);
  void forget_names_in(DirIndex dir) TALLY_REQUIRES(mutex_) TALLY_REQUIRES_SHARED(tree_.lock());
  void remove_subtree(DirIndex dir) TALLY_REQUIRES(mutex_) TALLY_REQUIRES(tree_.lock());
  int64_t remove_unmet_names(DirIndex dir) TALLY_REQUIRES(mutex_) TALLY_EXCLUDES(tree_.lock());

  template <class Each>
  void for_each_link_below(DirIndex dir, Each each) TALLY_REQUIRES(mutex_);
  [[nodiscard]] Delta shared_by_children(DirIndex dir, LinkIndex link) TALLY_REQUIRES(mutex_);

  struct Move;
  void move_totals(const Move& move) TALLY_REQUIRES(mutex_);
  void correct_links(const Move& move) TALLY_REQUIRES(mutex_);
  void correct_link(const Move& move, LinkIndex link) TALLY_REQUIRES(mutex_);

  DirTree& tree_;
  std::atomic<bool> may_have_names_to_search_ = false;
  KeyTable keys_;
  Mutex mutex_ TALLY_ACQUIRED_BEFORE(tree_.lock());
  NodePool<Link, LinkTag> links_;
  NodePool<Name, NameTag> names_;
  ReservedArray<Visit> visits_ TALLY_GUARDED_BY(mutex_);
  uint32_t visit_count_ TALLY_GUARDED_BY(mutex_) = 0;
  uint32_t stamp_ TALLY_GUARDED_BY(mutex_) = 0;
};

}  // namespace tally
