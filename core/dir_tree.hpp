#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <utility>

#include "core/file_stat.hpp"
#include "core/key_table.hpp"
#include "core/node_pool.hpp"
#include "core/stale_list.hpp"
#include "core/thread_safety.hpp"
#include "core/units.hpp"

namespace tally {

struct DirTag;
/// A directory of the tree. Null: no directory (the parent of the root, or of a removed one).
using DirIndex = PoolIndex<DirTag>;

/// Where a non-directory with one name is counted, and since which recount of that directory. A
/// recount that does not find the file ends its being counted there, and so does the removal of the
/// directory: the place is stale then. (The epoch has eight bits. A file that is gone behind our
/// back and still known through 256 recounts of its former directory passes for counted until the
/// next one.)
struct FilePlace {
  DirIndex dir = {};
  uint8_t epoch = 0;

  explicit operator bool() const { return bool{dir}; }
};

/// What one change adds to the recursive counters of a directory and of all its ancestors.
struct Delta {
  Bytes bytes = {};
  Blocks disk = {};
  Blocks unique = {};
  int64_t files = 0;
  int64_t subdirs = 0;
  int64_t link_names = 0;  ///< names of hard-linked inodes, see HardLinks

  friend bool operator==(const Delta&, const Delta&) = default;
  Delta& operator+=(const Delta& other);
  Delta operator-() const;
};

/// One directory's counters as they stood when they were read; the meaning of each is in the
/// README.
struct DirCounters {
  Bytes rbytes;
  Blocks rdisk;
  Blocks runique;
  int64_t rfiles = 0;
  int64_t rsubdirs = 0;
  int64_t files = 0;
  int64_t subdirs = 0;
  TimeNs rctime_ns = 0;
  uint64_t rgen = 0;
  bool suspect = false;  ///< something at or below the directory is to be recounted

  [[nodiscard]] int64_t rentries() const { return rfiles + rsubdirs; }
  [[nodiscard]] int64_t entries() const { return files + subdirs; }
};

/// Bits of DirNode::flags. Where `doubt_own` or `doubt_below` is set, the parent has `doubt_below`.
enum DirFlag : uint8_t {
  doubt_own = 1,      ///< what is directly in it may differ from what is counted: to be recounted
  doubt_below = 2,    ///< the same of some directory below
  doubt_renewed = 4,  ///< doubt_own was set once more while it was being recounted
  recounting = 8,     ///< between begin_recount() and end_recount()
  unseen = 16,        ///< a recount of the parent has not met it (yet)
  has_lost = 32,      ///< a recount has taken files out of it, whose records may still name it
  claimed = 64,       ///< see DirTree::claim
};

/// One directory. The recursive counters include what is below; `disk` and `unique` also include
/// the directory's own blocks.
struct DirNode {
  std::atomic<int64_t> bytes;
  std::atomic<int64_t> disk_blocks;
  std::atomic<int64_t> unique_blocks;
  std::atomic<int64_t> rfiles;
  std::atomic<int64_t> rsubdirs;
  std::atomic<int64_t> rctime_ns;
  std::atomic<uint64_t> rgen;
  std::atomic<uint64_t> watcher;     ///< see DirTree::watch, 0 if nobody watches
  std::atomic<int64_t> file_bytes;   ///< of the files with one name that are directly in it
  std::atomic<int64_t> file_blocks;  ///< "
  std::atomic<uint32_t> parent;
  std::atomic<uint32_t> files;
  std::atomic<uint32_t> subdirs;
  std::atomic<uint32_t> own_blocks;
  std::atomic<uint32_t> own_ctime_low;  ///< the low bits of its own ctime, as last observed
  std::atomic<uint32_t> link_names;     ///< names of hard-linked inodes in the subtree
  uint32_t first_child;
  uint32_t next_sibling;
  uint32_t previous_sibling;
  uint32_t first_link_name;  ///< HardLinks: names of hard-linked inodes directly in this directory
  uint32_t scratch;          ///< HardLinks: this directory's place in the visit under way
  std::atomic<uint16_t> holders;  ///< see DirTree::hold
  std::atomic<uint8_t> flags;     ///< DirFlag
  uint8_t epoch;                  ///< how often it has been recounted, modulo 256
};
static_assert(sizeof(DirNode) <= 128);

class DirTree;

/// Room for one directory more, which no other DirectoryRoom has, until this object ends. May be
/// empty. Move-only; the tree must outlive it.
class DirectoryRoom {
 public:
  DirectoryRoom() = default;
  DirectoryRoom(DirectoryRoom&& other) noexcept : tree_(std::exchange(other.tree_, nullptr)) {}
  DirectoryRoom& operator=(DirectoryRoom&&) = delete;
  ~DirectoryRoom();
  explicit operator bool() const { return tree_ != nullptr; }

 private:
  friend class DirTree;
  explicit DirectoryRoom(DirTree& tree) : tree_(&tree) {}

  DirTree* tree_ = nullptr;
};

/// The accounting: every directory's counters, kept so that a query is a few loads.
///
/// A change is one Delta, applied to a directory and all its ancestors, always upwards, under the
/// shared side of `lock()`; inserting, removing and moving directories take it exclusively. Queries
/// take no lock: each counter is one atomic, and a change is complete before its caller returns.
/// Counters are checked: one that would become negative marks its directories suspect.
///
/// Thread-safe except where a function says otherwise. Allocates nothing after construction.
class DirTree {
 public:
  /// Nodes for removed directories that somebody still holds, beside those of the capacity. More of
  /// them cost room for others.
  static constexpr uint32_t removed_max = 1 << 14;

  /// Room for `capacity` directories. Changed directories that are watched are reported to `stale`,
  /// which must outlive the tree; null for none. Throws std::bad_alloc.
  explicit DirTree(uint32_t capacity, StaleList* stale = nullptr);

  /// What of a new directory is counted: all that is in it, or nothing yet, so that it is suspect.
  enum class Content { counted, unknown };

  /// Adds a directory below `parent` (null: it becomes the root); the caller holds the node. EEXIST
  /// if that inode is in the tree already, ESTALE if `parent` no longer is, ENOSPC when the
  /// capacity is used up.
  Result<DirIndex> insert(DirIndex parent, const FileStat& stat, Content content = Content::counted)
      TALLY_EXCLUDES(lock_);

  /// As insert(), for the scanner: without the lock, and nobody holds the node. Its own blocks are
  /// counted in itself only. The caller is the only one that changes `parent`'s list of children.
  Result<DirIndex> insert_scanned(DirIndex parent, const FileStat& stat);

  /// The directory with this key, held: its node stays readable, even when the directory is removed
  /// meanwhile, until release(). Null if there is none.
  [[nodiscard]] DirIndex hold(const FileKey& key) TALLY_EXCLUDES(lock_);

  /// Ends one insert() or hold(). A node that nobody holds is used again once its directory is
  /// removed.
  void release(DirIndex dir) TALLY_EXCLUDES(lock_);

  /// Applies a change to `dir` and all its ancestors, raises their rctime to `ctime_ns` (clamped to
  /// now) and their rgen, and reports those that are watched. Nothing if `dir` is removed.
  void apply(DirIndex dir, const Delta& delta, TimeNs ctime_ns) TALLY_EXCLUDES(lock_);

  /// As apply(), of a file that is counted at `place`, whose directory has `entries` more
  /// non-directories. False, with nothing changed, if the place is stale.
  [[nodiscard]] bool apply_file(FilePlace place, const Delta& delta, TimeNs ctime_ns,
                                int64_t entries = 0) TALLY_EXCLUDES(lock_);

  /// Where a file is counted that is counted in `dir` from now on.
  [[nodiscard]] FilePlace place_in(DirIndex dir) TALLY_EXCLUDES(lock_);

  /// A non-directory is renamed: one of `from`'s entries is now one of `to`'s, and the change
  /// leaves the one for the other, where the file will be counted. Directories that have both below
  /// them keep their counters throughout. False, with nothing changed, if `from` is stale.
  [[nodiscard]] bool transfer(FilePlace from, FilePlace to, const Delta& delta, TimeNs ctime_ns)
      TALLY_EXCLUDES(lock_);

  /// Accounts the directory's own blocks and ctime as just observed. `mutated`: it has changed even
  /// if nothing observed differs; otherwise what is no news costs nothing. The caller holds the
  /// directory's inode lock, so that observations are applied in their order.
  void reconcile_own(DirIndex dir, const FileStat& stat, bool mutated) TALLY_EXCLUDES(lock_);

  /// Whether the directory's own ctime was that when it was last observed.
  [[nodiscard]] bool was_observed_at(DirIndex dir, TimeNs ctime_ns) const {
    return node(dir).own_ctime_low == static_cast<uint32_t>(ctime_ns);
  }

  /// Of a directory that was removed they are what they were, and suspect.
  [[nodiscard]] DirCounters counters(DirIndex dir) const;
  [[nodiscard]] DirIndex find(const FileKey& key) const;
  [[nodiscard]] FileKey key_of(DirIndex dir) const { return keys_.key_of(dir.value); }
  [[nodiscard]] DirIndex root() const { return root_; }

  /// Directories in the tree, and how many there may be.
  [[nodiscard]] uint32_t size() const { return size_.load(); }
  [[nodiscard]] uint32_t capacity() const { return capacity_; }

  /// Sets room aside for a directory that is about to be made below, so that its insert() won't
  /// fail for want of it; keep it until then. Empty when there is none.
  [[nodiscard]] DirectoryRoom reserve();

  /// Nodes that are held: also those of directories that are removed and not yet released.
  [[nodiscard]] uint32_t nodes_held() const { return pool_.size(); }

  /// No DirIndex is larger.
  [[nodiscard]] uint32_t index_max() const { return pool_.capacity(); }

  /// What is counted in `dir` may be wrong: it and all its ancestors say so until it is recounted.
  void mark_suspect(DirIndex dir) TALLY_EXCLUDES(lock_);

  /// How often a directory has become suspect.
  [[nodiscard]] uint64_t suspicions() const { return suspicions_.load(); }

  /// Whether `dir` itself is to be recounted; whether it or anything below is; or anything below.
  [[nodiscard]] bool is_suspect(DirIndex dir) const { return has_flag(dir, doubt_own); }
  [[nodiscard]] bool has_suspects(DirIndex dir) const {
    return has_flag(dir, doubt_own | doubt_below);
  }
  [[nodiscard]] bool has_suspects_below(DirIndex dir) const { return has_flag(dir, doubt_below); }

  /// If none of `dir`'s children has suspects, it has none below either from now on. Costs a look
  /// at each child.
  void settle_suspects_below(DirIndex dir) TALLY_EXCLUDES(lock_);

  /// Who walks a tree together with others claims the directories on its way, for the others to
  /// begin elsewhere; it excludes nobody. True for the first one, until end_claim().
  [[nodiscard]] bool claim(DirIndex dir) {
    return (node(dir).flags.fetch_or(claimed) & claimed) == 0;
  }
  void end_claim(DirIndex dir) { node(dir).flags.fetch_and(static_cast<uint8_t>(~claimed)); }
  [[nodiscard]] bool is_claimed(DirIndex dir) const { return has_flag(dir, claimed); }

  /// Whether somebody is between begin_recount() and end_recount().
  [[nodiscard]] bool is_being_recounted(DirIndex dir) const { return has_flag(dir, recounting); }

  /// Whether a child of `dir` has suspects and nobody is at it. Costs a look at each child.
  [[nodiscard]] bool has_unclaimed_suspects_below(DirIndex dir) TALLY_EXCLUDES(lock_) {
    ReaderLock lock(lock_);
    for (DirIndex child{node(dir).first_child}; child; child = {node(child).next_sibling})
      if (has_suspects(child) && !has_flag(child, claimed | recounting)) return true;
    return false;
  }

  /// From now on the first change of `dir`'s rbytes, the only counter that shows in attributes,
  /// reports `watcher` (not 0) once to the StaleList and ends the watch. Call it before reading the
  /// counters that somebody will remember.
  void watch(DirIndex dir, uint64_t watcher);

  // What HardLinks and the scanner build on.

  [[nodiscard]] SharedMutex& lock() TALLY_RETURN_CAPABILITY(lock_) { return lock_; }
  DirNode& node(DirIndex dir) { return pool_[dir]; }
  [[nodiscard]] const DirNode& node(DirIndex dir) const { return pool_[dir]; }
  [[nodiscard]] DirIndex parent(DirIndex dir) const {
    return {node(dir).parent.load(std::memory_order_acquire)};
  }

  /// The deepest directory that has both at or below it.
  [[nodiscard]] DirIndex lowest_common_ancestor(DirIndex a, DirIndex b) const
      TALLY_REQUIRES_SHARED(lock_);

  /// The change at one directory alone, without its ancestors. The time is clamped already.
  void add(DirIndex dir, const Delta& delta, TimeNs ctime_ns) TALLY_REQUIRES_SHARED(lock_);

  /// What `dir` adds to its ancestors: its recursive counters and itself.
  [[nodiscard]] Delta totals(DirIndex dir) const;

  /// What `dir` and its files with one name amount to, where `linked_names` of its entries are
  /// hard-linked.
  [[nodiscard]] Delta own_totals(DirIndex dir, int64_t linked_names) const;

  /// Counts `entries` non-directories more directly in `dir`.
  void add_entries(DirIndex dir, int64_t entries) TALLY_REQUIRES_SHARED(lock_);

  /// mark_suspect() for who holds the lock.
  void suspect_upwards(DirIndex dir) TALLY_REQUIRES_SHARED(lock_);

  /// Counts a file as one with one name (`counted`), or not as such any more (its negative); no
  /// recursive counter changes. The place is not stale.
  void add_file(FilePlace place, const Delta& counted) TALLY_REQUIRES_SHARED(lock_);

  /// Whether a file is counted at `place`, and whether the recount under way, if there is one, has
  /// met it or needs not to.
  [[nodiscard]] bool is_stale(FilePlace place) const TALLY_REQUIRES_SHARED(lock_);
  [[nodiscard]] bool is_met(FilePlace place) const TALLY_REQUIRES_SHARED(lock_) {
    return place.epoch == node(place.dir).epoch;
  }

  /// What files with one name amount to in one directory.
  struct Files {
    Bytes bytes;
    Blocks blocks;
    int64_t count = 0;
  };

  /// Recounts that may be under way.
  static constexpr std::size_t recounts_max = 32;

  /// Recount (recount.hpp): all files counted in `dir`, of whose entries `linked_names` are
  /// hard-linked, are to be met from now on, and all its children. ENOENT if the directory is
  /// removed, EBUSY if it is being recounted, EAGAIN if too many are.
  Status begin_recount(DirIndex dir, int64_t linked_names) TALLY_EXCLUDES(lock_);

  /// The file at this place has been met: it will be counted at the place returned. Null if it is
  /// stale.
  [[nodiscard]] FilePlace meet_file(FilePlace place, const Delta& counted) TALLY_EXCLUDES(lock_);

  /// The child has been met. False if it is no child of `dir`.
  [[nodiscard]] bool meet_child(DirIndex dir, DirIndex child) TALLY_EXCLUDES(lock_);

  /// All has been met, and `others` beside. Takes out of the counters what was not met, and adds
  /// the others. Returns the difference. With `complete` the directory is no longer suspect (unless
  /// it became so meanwhile); else it is: not all could be seen.
  Files end_recount(DirIndex dir, const Files& others, TimeNs ctime_ns, bool complete)
      TALLY_EXCLUDES(lock_);

  /// Calls `each(child)`, which must not touch the tree, for the children that the last recount of
  /// `dir` did not meet.
  template <class Each>
  void for_each_unseen_child(DirIndex dir, Each each) TALLY_EXCLUDES(lock_) {
    ReaderLock lock(lock_);
    for (DirIndex child{node(dir).first_child}; child; child = {node(child).next_sibling})
      if (is_unseen(child)) each(child);
  }

  /// Whether the last recount of the directory's parent has not met it.
  [[nodiscard]] bool is_unseen(DirIndex dir) const { return has_flag(dir, unseen); }

  /// Whether `dir` is `ancestor` or below it.
  [[nodiscard]] bool is_at_or_below(DirIndex dir, DirIndex ancestor) const
      TALLY_REQUIRES_SHARED(lock_);

  /// Takes a directory without children, and whatever is still counted in it, out of the tree and
  /// of all its ancestors.
  void remove(DirIndex dir) TALLY_REQUIRES(lock_);

  /// Whether the directory is in the tree, not removed.
  [[nodiscard]] bool is_attached(DirIndex dir) const TALLY_REQUIRES_SHARED(lock_) {
    return dir == root_ || parent(dir);
  }

  /// Hangs `dir` below another parent: parent link, lists of children, `subdirs` of both. The
  /// recursive counters of the ancestors are the caller's.
  void relink(DirIndex dir, DirIndex new_parent) TALLY_REQUIRES(lock_);

 private:
  Result<DirIndex> make_node(const FileStat& stat);
  Result<DirIndex> take_node(const FileStat& stat);
  void link_child(DirIndex parent, DirIndex dir);
  void unlink_child(DirIndex parent, DirIndex dir) TALLY_REQUIRES(lock_);
  void give_back(DirIndex dir) TALLY_REQUIRES_SHARED(lock_);
  void doubt_upwards(DirIndex dir) TALLY_REQUIRES_SHARED(lock_);
  [[nodiscard]] bool has_flag(DirIndex dir, int flags) const {
    return (node(dir).flags & flags) != 0;
  }
  void apply_upwards(DirIndex dir, DirIndex end, const Delta& delta, TimeNs ctime_ns)
      TALLY_REQUIRES_SHARED(lock_);
  friend class DirectoryRoom;
  template <class Counter>
  [[nodiscard]] static bool add_signed(std::atomic<Counter>& counter, int64_t amount);
  template <class Counter>
  void add_checked(DirIndex dir, std::atomic<Counter>& counter, int64_t amount)
      TALLY_REQUIRES_SHARED(lock_);

  /// What is counted in a directory that is being recounted and has not been met yet.
  struct Unmet {
    DirIndex dir;  // null: not in use
    std::atomic<int64_t> bytes;
    std::atomic<int64_t> blocks;
    std::atomic<int64_t> files;
  };
  [[nodiscard]] Unmet& unmet_of(DirIndex dir) TALLY_REQUIRES_SHARED(lock_);

  const uint32_t capacity_;
  std::atomic<uint32_t> size_ = 0;
  std::atomic<uint32_t> reserved_ = 0;  // DirectoryRooms
  std::atomic<uint64_t> suspicions_ = 0;
  SharedMutex lock_;
  NodePool<DirNode, DirTag> pool_;
  KeyTable keys_;
  StaleList* stale_;
  DirIndex root_;
  std::array<Unmet, recounts_max> unmet_ = {};  // changes of `dir` take the lock exclusively
};

/// The time of the clock that the kernel takes ctimes from.
TimeNs now_ns();

/// `ctime_ns`, or the current time if that is earlier: a time in the future must not poison rctime.
TimeNs clamp_to_now(TimeNs ctime_ns);

}  // namespace tally
