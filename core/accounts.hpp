#pragma once

#include <atomic>

#include "core/dir_tree.hpp"
#include "core/hard_links.hpp"

namespace tally {

/// What of a non-directory inode is counted at present, and where. Kept by whoever keeps the inode
/// (the inode table's slot), guarded by that inode's lock.
///
/// Exactly one of these holds: it is counted at `place` (one name), it is counted through `link`
/// (several names), it is an orphan (no name, still open), or it is counted nowhere.
struct FileRecord {
  FileKey key = {};
  FilePlace place = {};
  LinkIndex link = {};
  bool orphan = false;
  Bytes size = {};
  Blocks blocks = {};
  TimeNs ctime_ns = 0;
};

/// All accounting in one place: each function tells it what has just happened on the lower
/// filesystem, with the state that was observed afterwards, never with what was asked for.
///
/// The caller holds the inode lock of every inode whose record or directory it passes, taken before
/// the observation (so that observations are applied in their order). Lock order: inode lock, then
/// HardLinks, then DirTree, then KeyTable. Thread-safe under that rule; allocates nothing.
class Accounts {
 public:
  /// Room for `dirs_max` directories and `inodes_max` hard-linked inodes. Throws std::bad_alloc.
  Accounts(uint32_t dirs_max, uint32_t inodes_max, StaleList* stale = nullptr);

  DirTree& tree() { return tree_; }
  HardLinks& links() { return links_; }

  /// A name in `dir` was looked up whose inode has no record yet: fills `file` with what the scan
  /// (or an earlier operation) has counted. Counts nothing; file_observed() with the same state
  /// may.
  void file_found(FileRecord& file, DirIndex dir, const FileStat& now);

  /// An inode without a record was met: fills `file` with what is counted of it through its link,
  /// if it has one; else it is counted nowhere as far as is known.
  void link_found(FileRecord& file, const FileKey& key);

  /// `dir` got a name for the inode: by create, mknod, symlink, link, or link of an O_TMPFILE.
  void name_added(FileRecord& file, DirIndex dir, const FileStat& now);

  /// A name of the inode in `dir` (null: one that is not counted) is gone, by unlink or by being
  /// renamed over. `still_open`: some handle of ours keeps the inode alive, so that it becomes an
  /// orphan if that was its last name. Names that are counted although none is left go, too, and
  /// make their directories suspect.
  void name_removed(FileRecord& file, DirIndex dir, const FileStat& now, bool still_open);

  /// A name of the inode moved from one directory to another (or within one).
  void name_moved(FileRecord& file, DirIndex from, DirIndex to, const FileStat& now);

  /// Data or attributes may have changed. `mutated`: they did, even if nothing observed differs (so
  /// rgen grows); otherwise an unchanged inode costs nothing.
  void file_observed(FileRecord& file, const FileStat& now, bool mutated);

  /// An inode without a name was opened (O_TMPFILE).
  void orphan_opened(FileRecord& file, const FileStat& now);

  /// The last handle of the inode is closed: an orphan is forgotten.
  void last_handle_closed(FileRecord& file);

  /// A recount of `dir` has met a name of the inode there, with this state. Returns whether the
  /// name was counted; of the state there may be news all the same.
  bool name_met(FileRecord& file, DirIndex dir, const FileStat& now);

  /// mkdir. ENOSPC when there is no room: call room_for_directory() before the lower mkdir, since
  /// what exists below must not be refused afterwards, and keep what it returns until this returns.
  Result<DirIndex> dir_created(DirIndex parent, const FileStat& now);
  [[nodiscard]] DirectoryRoom room_for_directory() { return tree_.reserve(); }

  /// A directory has been found in `parent`. If it is counted elsewhere, where it no longer is, it
  /// moves; unless it is mounted here, too (`is_mount_root`), and counted where it was met first.
  /// If it is counted nowhere it is from now on, and suspect, since what is in it is not. The
  /// caller holds the node returned. ENOSPC when there is no room.
  Result<DirIndex> dir_found(DirIndex parent, const FileStat& now, bool is_mount_root);

  /// rmdir, or a directory renamed over. What is still counted in it goes with it, and makes its
  /// parent suspect. Nothing if it is removed already. The node stays readable as long as it is
  /// held.
  void dir_removed(DirIndex dir);

  /// The same if it is still the directory with this key and no recount of its parent has met it.
  void dir_missing(DirIndex dir, const FileKey& key);

  /// A directory, with all that is in it, moved from its parent to `to` (perhaps the same). If by
  /// our accounts `to` is below the directory, or either is removed, something moved behind our
  /// back: both ends become suspect and nothing moves.
  void dir_moved(DirIndex dir, DirIndex to, const FileStat& now);

  /// The directory's own blocks, ctime or attributes may have changed.
  void dir_observed(DirIndex dir, const FileStat& now, bool mutated);

  /// Bytes of unlinked files that are still open.
  [[nodiscard]] Bytes orphan_bytes() const { return {orphan_bytes_.load()}; }

 private:
  void count_in(FileRecord& file, DirIndex dir, const FileStat& now, int64_t entries);
  bool meet_file(FileRecord& file, DirIndex dir, const FileStat& now);
  void follow(FileRecord& file, DirIndex dir);
  void apply(FileRecord& file, const Delta& delta, TimeNs ctime_ns, int64_t entries = 0);
  void suspect_change(DirIndex dir, const FileStat& now);
  void leave_orphans(FileRecord& file);
  void forget_lost_names(FileRecord& file, const FileStat& now);
  void forget_former_inode(const FileStat& now);

  DirTree tree_;
  HardLinks links_;
  std::atomic<int64_t> orphan_bytes_ = 0;
};

}  // namespace tally
