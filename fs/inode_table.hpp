#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <utility>

#include <climits>

#include "core/accounts.hpp"
#include "core/descriptor_budget.hpp"
#include "core/file_stat.hpp"
#include "core/key_table.hpp"
#include "core/mapping.hpp"
#include "core/queue.hpp"
#include "core/result.hpp"
#include "core/thread_safety.hpp"
#include "fs/file_handle.hpp"

namespace tally::fs {

class InodeTable;

/// What FUSE calls a node id: slot | generation << 32. Never repeats within a mount; the root is 1.
using NodeId = uint64_t;

/// One inode that the kernel, or a request under way, knows.
///
/// The public members belong to the handlers, who hold the inode's lock (InodeTable::lock) to touch
/// them. Before the first use of `record` or `dir` they fill them in (Accounts::file_found,
/// DirTree::hold) and set `accounted`.
class Inode {
 public:
  FileRecord record;            ///< of a non-directory
  DirIndex dir;                 ///< of a directory, held; null when the tree has no node for it
  uint32_t open_handles = 0;    ///< files open through the mount
  bool accounted = false;       ///< `record` or `dir` is filled in
  bool settle_pending = false;  ///< the Settler will look at it again
  uint8_t looks = 0;            ///< that the Settler has taken since it was last written to
  bool pages_current = false;   ///< nobody but us has changed it since it was last opened

  /// `dir` for who does not hold the inode's lock: a directory that was gone behind our back and is
  /// found again gets another node.
  [[nodiscard]] DirIndex dir_now() const {
    return std::atomic_ref(const_cast<DirIndex&>(dir)).load();
  }
  /// Which of ST_NOSUID and ST_NODEV the mounts below the source's own have through which it was
  /// met.
  [[nodiscard]] unsigned long restrictions() const {
    return std::atomic_ref(const_cast<uint8_t&>(restrictions_)).load();
  }
  /// With the inode's lock held. Returns the former one.
  DirIndex exchange_dir(DirIndex now) { return std::atomic_ref(dir).exchange(now); }

  // Never changes as long as somebody holds a reference; no lock needed.
  [[nodiscard]] NodeId id() const { return slot_ | uint64_t{generation_} << 32; }
  [[nodiscard]] const FileKey& key() const { return key_; }
  [[nodiscard]] bool is_directory() const { return S_ISDIR(type_); }
  [[nodiscard]] bool is_regular() const { return S_ISREG(type_); }

 private:
  friend class InodeTable;
  friend class InodeRef;
  friend class PinnedInode;

  /// Whether the descriptor may be closed while nobody uses it.
  [[nodiscard]] bool evictable() const { return !nameless_ && !kept_open_; }

  // Guarded by InodeTable::mutex_; fd_ stays as it is while the inode is pinned, and restrictions_
  // is read without.
  FileKey key_ = {};
  uint64_t lookups_ = 0;     // nlookup: references of the kernel
  uint32_t references_ = 0;  // InodeRefs, and children that have this inode as parent_
  uint32_t pins_ = 0;        // PinnedInodes
  uint32_t slot_ = 0;
  uint32_t generation_ = 0;
  uint16_t type_ = 0;              // S_IFMT bits
  MountIndex mount_ = root_mount;  // through which it was met first
  uint8_t restrictions_ = 0;       // of all through which it was met, but the source's own
  int fd_ = -1;                    // O_PATH
  QueueLink<Inode> idle_link_;     // in InodeTable::idle_, or in the list of free slots
  uint32_t parent_ = 0;            // slot of the parent; 0 where inodes are opened by handle
  bool in_use_ = false;
  bool nameless_ = false;   // no name is left: the descriptor is the only way to the inode
  bool kept_open_ = false;  // can't be opened again for another reason
  Identity identity_;       // from the first eviction on
};
static_assert(sizeof(Inode) <= 192, "memory per inode that the kernel knows");

/// Keeps an inode's slot (not its descriptor) alive. Move-only; may be null. The table must outlive
/// it.
class InodeRef {
 public:
  InodeRef() = default;
  InodeRef(InodeRef&& other) noexcept
      : table_(other.table_), inode_(std::exchange(other.inode_, nullptr)) {}
  InodeRef& operator=(InodeRef&& other) noexcept {
    std::swap(table_, other.table_);
    std::swap(inode_, other.inode_);
    return *this;
  }
  ~InodeRef();

  /// One more reference to the same inode, for an open file or the Settler to keep.
  [[nodiscard]] InodeRef share() const;

  Inode* operator->() const { return inode_; }
  Inode& operator*() const { return *inode_; }
  explicit operator bool() const { return inode_ != nullptr; }

 private:
  friend class InodeTable;
  friend class PinnedInode;
  InodeRef(InodeTable& table, Inode& inode) : table_(&table), inode_(&inode) {}

  InodeTable* table_ = nullptr;
  Inode* inode_ = nullptr;
};

/// Keeps an inode's slot and its O_PATH descriptor alive: what nearly every handler works with.
class PinnedInode {
 public:
  PinnedInode() = default;
  PinnedInode(PinnedInode&& other) noexcept = default;
  PinnedInode& operator=(PinnedInode&& other) noexcept = default;
  ~PinnedInode();

  /// The O_PATH descriptor; valid as long as this object lives.
  [[nodiscard]] int fd() const { return ref_->fd_; }

  [[nodiscard]] InodeRef share() const { return ref_.share(); }
  Inode* operator->() const { return ref_.inode_; }
  Inode& operator*() const { return *ref_; }
  explicit operator bool() const { return static_cast<bool>(ref_); }

 private:
  friend class InodeTable;
  explicit PinnedInode(InodeRef ref) : ref_(std::move(ref)) {}

  InodeRef ref_;
};

/// Holds the locks of up to four inodes for a scope. Inodes share locks (1024 stripes), so a thread
/// that holds an InodeLock must not take another one: lock all that an operation touches at once.
/// Lock order: inode locks, HardLinks, DirTree, KeyTable.
class InodeLock {
 public:
  InodeLock(const InodeLock&) = delete;
  InodeLock& operator=(const InodeLock&) = delete;
  ~InodeLock();

 private:
  friend class InodeTable;
  static constexpr std::size_t inodes_max = 4;
  InodeLock(InodeTable& table, std::array<const Inode*, inodes_max> inodes);

  std::array<Mutex*, inodes_max> locked_ = {};  // sorted by address, no duplicates, null if unused
};

/// All inodes the kernel knows: node ids, lookup counts, and a cache of O_PATH descriptors whose
/// size is bounded by a DescriptorBudget, whatever the number of inodes. How the races are decided
/// is written down in inode_table.cpp.
///
/// Thread-safe. Allocates nothing after construction.
class InodeTable {
 public:
  /// Starts with the root of the source, which never leaves. `capacity`: how many inodes can be
  /// known at once (address space is reserved, memory taken as used). The budget, and the tree,
  /// whose nodes the inodes hold, must outlive the table. Throws std::bad_alloc, and
  /// std::system_error if `source_fd` (a directory; stays the caller's) can't be examined.
  InodeTable(int source_fd, uint32_t capacity, DescriptorBudget& budget, DirTree& tree);
  ~InodeTable();
  InodeTable(const InodeTable&) = delete;
  InodeTable& operator=(const InodeTable&) = delete;

  /// The inode of a node id. ESTALE if there is none.
  [[nodiscard]] Result<InodeRef> get(NodeId id) TALLY_EXCLUDES(mutex_);

  /// The same with its descriptor, opened again if it was evicted. ESTALE also if the lower inode
  /// is gone; ENFILE if all descriptors are in use.
  [[nodiscard]] Result<PinnedInode> pin(NodeId id) TALLY_EXCLUDES(mutex_);
  [[nodiscard]] Result<PinnedInode> pin(const InodeRef& inode) TALLY_EXCLUDES(mutex_);

  /// The inode that `name` in the open directory leads to, if it is known; `key` is what statx said
  /// of it. Opens nothing. Null if it is not known, or can't be told from one that had its number.
  [[nodiscard]] InodeRef find(const FileKey& key, int directory_fd, const char* name)
      TALLY_EXCLUDES(mutex_);

  /// The inode behind `path_fd` (O_PATH, made by open_descriptor), which was found or made as
  /// `name` in `parent` and whose statx is `stat`; both null for an O_TMPFILE. Takes the descriptor
  /// over or closes it. Counts no lookup. ENFILE when the table is full, which is logged once.
  [[nodiscard]] Result<PinnedInode> find_or_create(CountedFd path_fd, const FileStat& stat,
                                                   const Inode* parent, const char* name)
      TALLY_EXCLUDES(mutex_);

  /// Counts a lookup. Before the reply: FORGET may follow it at once. When the reply could not be
  /// delivered: forget(id, 1).
  void add_lookup(const Inode& inode) TALLY_EXCLUDES(mutex_);

  /// FORGET, or a lookup undone.
  void forget(NodeId id, uint64_t lookups) TALLY_EXCLUDES(mutex_);

  /// The inode has got this name: after LINK and RENAME (both inodes of an exchange), with its link
  /// count as observed afterwards. The inode was pinned before the lower operation.
  void named(const PinnedInode& inode, const Inode& parent, const char* name, uint32_t nlink)
      TALLY_EXCLUDES(mutex_);

  /// The inode's last name is gone: after UNLINK, RMDIR, RENAME, when `nlink` was observed to be 0
  /// (directories: when removed). The inode was pinned before the lower operation.
  void unlinked(const PinnedInode& inode) TALLY_EXCLUDES(mutex_);

  /// Opens a descriptor for a request: calls `open` (int(), errno on failure) with the budget
  /// respected, evicting cached descriptors as needed. ENFILE if all are in use.
  template <class Open>
  [[nodiscard]] Result<CountedFd> open_descriptor(Open&& open) TALLY_EXCLUDES(mutex_);

  /// Locks up to four inodes, each an Inode& or an Inode* that may be null.
  template <class... Inodes>
  [[nodiscard]] InodeLock lock(const Inodes&... inodes) {
    return InodeLock(*this, {address_of(inodes)...});
  }

  /// Whether anybody but the caller, who has one reference, refers to the inode: a request under
  /// way or an open file.
  [[nodiscard]] bool is_in_use(const Inode& inode) const TALLY_EXCLUDES(mutex_);

  /// Whether the table has an inode with this key.
  [[nodiscard]] bool knows(const FileKey& key) const { return keys_.find(key) != 0; }

  /// Whether the inode has a name left, as far as we know.
  [[nodiscard]] bool has_name(const Inode& inode) const TALLY_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return !inode.nameless_;
  }

  /// The mounts of all inodes that were met.
  [[nodiscard]] const FileHandles& handles() const { return handles_; }

  [[nodiscard]] uint32_t size() const TALLY_EXCLUDES(mutex_);

 private:
  friend class InodeRef;
  friend class PinnedInode;
  friend class InodeLock;

  using Name = std::array<char, NAME_MAX + 1>;
  /// References that end together.
  struct Dropped {
    uint64_t lookups = 0;
    uint32_t references = 0;
    uint32_t pins = 0;
  };
  /// What a freed slot leaves to be given back once mutex_ is released.
  struct Remains {
    int fd = -1;
    DirIndex held_dir = {};
    Inode* parent = nullptr;
  };
  static constexpr std::size_t lock_count = 1024;

  static const Inode* address_of(const Inode& inode) { return &inode; }
  static const Inode* address_of(const Inode* inode) { return inode; }

  // Slots (inode_table.cpp).
  Inode* live(NodeId id) TALLY_REQUIRES(mutex_);
  Inode* keyed(const FileKey& key) TALLY_REQUIRES(mutex_);
  Inode* acquire_slot() TALLY_REQUIRES(mutex_);
  Inode* create(CountedFd& path_fd, const FileStat& stat, MountIndex mount) TALLY_REQUIRES(mutex_);
  InodeRef refer(Inode& inode) TALLY_REQUIRES(mutex_);
  void log_full() TALLY_EXCLUDES(mutex_);
  Remains free_if_unused(Inode& inode) TALLY_REQUIRES(mutex_);
  void drop(Inode& inode, Dropped dropped) TALLY_EXCLUDES(mutex_);
  [[nodiscard]] bool goes_by(const Inode& inode, const Inode& parent, const char* name) const
      TALLY_REQUIRES(mutex_);
  [[nodiscard]] Inode* set_name(Inode& inode, const Inode& parent, const char* name, uint32_t nlink)
      TALLY_REQUIRES(mutex_);

  // Descriptors (inode_descriptors.cpp).
  void take_over(Inode& inode, CountedFd& path_fd) TALLY_REQUIRES(mutex_);
  PinnedInode pin_open(Inode& inode) TALLY_REQUIRES(mutex_);
  Result<PinnedInode> reopen(const InodeRef& inode) TALLY_EXCLUDES(mutex_);
  Result<PinnedInode> reopen_by_handle(const InodeRef& inode) TALLY_EXCLUDES(mutex_);
  Result<PinnedInode> reopen_by_name(const InodeRef& inode) TALLY_EXCLUDES(mutex_);
  Result<CountedFd> open_named(const PinnedInode& parent, const char* name, const Inode& expected)
      TALLY_EXCLUDES(mutex_);
  PinnedInode install(Inode& inode, CountedFd& path_fd) TALLY_EXCLUDES(mutex_);
  Status claim_descriptor() TALLY_EXCLUDES(mutex_);
  bool evict_one() TALLY_EXCLUDES(mutex_);

  DescriptorBudget& budget_;
  DirTree& tree_;
  FileHandles handles_;
  std::array<Mutex, lock_count> inode_locks_;
  std::atomic_flag full_logged_;

  mutable Mutex mutex_;  // a leaf but for keys_; no system call is made with it held
  KeyTable keys_;
  ReservedArray<Inode> slots_ TALLY_GUARDED_BY(mutex_);  // slot 0 is never used
  ReservedArray<Name> names_ TALLY_GUARDED_BY(mutex_);   // touched only where there are no handles
  Queue<Inode, &Inode::idle_link_> idle_ TALLY_GUARDED_BY(mutex_);  // open, evictable, not pinned
  Queue<Inode, &Inode::idle_link_> free_ TALLY_GUARDED_BY(mutex_);
  uint32_t slots_touched_ TALLY_GUARDED_BY(mutex_) = 0;
  uint32_t size_ TALLY_GUARDED_BY(mutex_) = 0;
  PinnedInode root_;
};

template <class Open>
Result<CountedFd> InodeTable::open_descriptor(Open&& open) {
  while (true) {
    if (const Status claimed = claim_descriptor(); !claimed)
      return std::unexpected(claimed.error());
    CountedFd opened(budget_, UniqueFd(open()));
    if (opened) return opened;
    const int error = errno;
    // The limit may have been lowered under us, or be that of the whole system.
    if ((error != EMFILE && error != ENFILE) || !evict_one()) return failure(error);
  }
}

}  // namespace tally::fs
