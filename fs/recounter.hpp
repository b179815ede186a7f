#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>

#include "core/directory_reader.hpp"
#include "core/mapping.hpp"
#include "core/recount.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

/// Walks the lower directory while it is served and recounts its directories one after the other.
///
/// The walk goes depth first and keeps nothing of a directory on its way but its node id and how
/// far it has been read. A directory that moves meanwhile, with the walk below it, is come back to
/// where it is then.
///
/// For one thread; several recounters may walk at the same time. Allocates nothing after
/// construction.
class Recounter {
 public:
  enum class Scope {
    /// Directories of which nothing is counted yet, and those above to get there. Several
    /// recounters share the work: each begins where no other one is, then helps the others.
    unscanned,
    suspects,  ///< in the same way those that became suspect; the totals on the way are verified
    everything,
  };

  /// What a walk has met.
  struct Outcome {
    uint64_t directories = 0;  ///< recounted
    uint64_t entries = 0;      ///< names in these
    uint64_t differing = 0;    ///< directories in which something was not counted as it is
    uint64_t failed = 0;       ///< directories that could not be read as a whole: they are suspect
    bool finished = false;     ///< not stopped before the end

    /// Whether a directory was recounted that could be read.
    [[nodiscard]] bool got_on() const { return directories > failed; }
  };

  /// Called between directories with the number of lower operations since the last call, no lock
  /// held: may sleep to keep a pace. False ends the walk.
  using Pace = std::function<bool(uint64_t operations)>;

  /// The filesystem must outlive the recounter. Throws std::bad_alloc.
  explicit Recounter(Filesystem& filesystem);

  /// From the root down.
  Outcome walk(Scope scope, const Pace& pace);

  /// How many directories it has recounted in all. Any thread.
  [[nodiscard]] uint64_t directories() const {
    return directories_.load(std::memory_order_relaxed);
  }

 private:
  /// How the children of a directory are gone through: unclaimed, then shared, or all; then
  /// by_stat.
  enum class Pass : uint8_t {
    unclaimed,  // where no other recounter is
    shared,     // where others are
    all,        // on a way down that a shared pass has begun
    by_stat,    // trusts no number that the directory lists
  };
  struct Level {
    NodeId directory;  // with one lookup of ours
    off_t position;    // in the directory: what is before it has been walked
    Pass pass;
    bool claimed;  // by this recounter
  };
  /// A child that was counted and is not there any more. Perhaps it turns up elsewhere.
  struct Missing {
    FileKey key;
    DirIndex dir;
  };
  static constexpr std::size_t depth_max = 1 << 20;

  bool visit(const PinnedInode& directory, bool was_suspect);
  void enter(const PinnedInode& directory, DirIndex dir);
  void complete(DirIndex dir);
  bool descend();
  void leave(bool visited);
  bool rest();
  [[nodiscard]] bool is_child(const PinnedInode& inode, const PinnedInode& directory) const;
  bool begin_next_pass(const PinnedInode& directory, Level& level);
  [[nodiscard]] bool is_to_recount(DirIndex dir);
  [[nodiscard]] DirIndex wanted(int fd, const dirent64& entry, uint32_t dev, Pass pass);

  void recount(const PinnedInode& directory, bool was_suspect);
  void warm_up(int fd);
  bool meet_all(Recount& recount, const PinnedInode& directory, int fd);
  Status meet(Recount& recount, const PinnedInode& directory, int fd, const dirent64& entry);
  void suspect_if_another(const FileStat& met, int fd, const char* name);
  Status meet_known(Recount& recount, const PinnedInode& directory, int fd, const char* name,
                    const FileKey& key);
  Status meet_inode(Recount& recount, const Inode& directory, Inode& inode, int fd,
                    const char* name);
  Status meet_new_directory(Recount& recount, DirIndex parent, const FileStat& now);
  Status meet_directory(Recount& recount, const Inode& directory, Inode& inode,
                        const EntryStat& now);
  void note_missing(DirIndex dir);
  void remove_missing();

  [[nodiscard]] DirTree& tree() const { return filesystem_.accounts_.tree(); }

  Filesystem& filesystem_;
  DirectoryReader walked_;   // the directory whose children are being visited
  DirectoryReader counted_;  // the one that is being recounted
  ReservedArray<Level> levels_;
  std::size_t depth_ = 0;
  ReservedArray<Missing> missing_;
  std::size_t missing_count_ = 0;
  Scope scope_ = Scope::suspects;
  const Pace* pace_ = nullptr;
  Outcome outcome_;
  uint64_t operations_ = 0;
  std::atomic<uint64_t> directories_ = 0;
};

}  // namespace tally::fs
