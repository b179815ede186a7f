#pragma once

#include "core/accounts.hpp"

namespace tally {

/// Makes what is counted in one directory agree with what is found in it, while everything in it
/// may be written to. Whoever lists the directory begins, tells of each entry, and finishes:
/// the difference is then applied to the directory and all above it, in one step for the files that
/// nobody has a record of, in one step each for the others.
///
/// That one primitive is the scan of a mounted tree (of a directory not scanned yet, nothing is
/// counted but what happened to it since), the repair of a suspect directory, the audit, and what
/// is done about a change behind our back.
///
/// From begin() to finish() no name in the directory changes and none is met for the first time
/// (fs/name_locks, held exclusively); file sizes may change, and the directory may move or go.
/// For one thread. Allocates nothing.
class Recount {
 public:
  Recount(Accounts& accounts, DirIndex dir) : accounts_(accounts), dir_(dir) {}
  Recount(const Recount&) = delete;
  Recount& operator=(const Recount&) = delete;
  /// Unfinished, it leaves the directory suspect.
  ~Recount();

  /// ENOENT if the directory is removed, EBUSY if somebody else recounts it, EAGAIN if too many
  /// recounts are under way.
  Status begin();

  /// A file with one name that nobody has a record of.
  void meet(const FileStat& now);

  /// A name of a file with a record, whose inode lock the caller holds since before `now` was
  /// observed. Every file with several names needs one.
  void meet(FileRecord& file, const FileStat& now);

  /// A directory. False if it is not counted in this one: that is for Accounts::dir_found().
  [[nodiscard]] bool meet_directory(const FileKey& key);

  /// Something was not counted as it was met, or can't be told.
  void differs() { differs_ = true; }

  /// All entries have been met; or not, because something could not be read: then the directory is
  /// suspect. Returns whether what was found agrees with what was counted.
  bool finish(bool complete);

 private:
  Accounts& accounts_;
  const DirIndex dir_;
  DirTree::Files others_;
  TimeNs newest_ctime_ns_ = 0;
  bool differs_ = false;
  bool under_way_ = false;
};

}  // namespace tally
