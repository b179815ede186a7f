#include "fs/inode_table.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <functional>
#include <new>
#include <optional>
#include <system_error>

#include <spdlog/spdlog.h>

#include "core/hot_path_guard.hpp"

// Lifetime and races
// ==================
//
// A slot is kept by three kinds of references: the kernel's lookups, InodeRefs (requests under way,
// open files) and, where inodes are opened by name, children that need their parent's descriptor.
// Whatever decides over life and death is one critical section of mutex_; whatever takes time
// (system calls, the tree) happens outside of it. The interleavings that matter:
//
// Lookup against FORGET of the last reference. Both are decided under mutex_. Either the lookup
// finds the slot in keys_ and refers to it, then the forget sees a reference and frees nothing; or
// the forget takes the slot out of keys_ and frees it, then the lookup makes another slot. There is
// no state in between: a slot in keys_ is alive. The reply to a lookup is sent after add_lookup(),
// so the kernel can't forget what was not counted.
//
// A slot that waits for its last InodeRef. A forgotten inode whose file is still being released
// stays in keys_; a new lookup finds it and counts itself, and the inode keeps its node id. What
// is accounted in `record` is therefore never in two slots at once.
//
// Two first lookups of one inode. The second finds the slot of the first, perhaps before the first
// has filled in `record`. That is why a new slot is not reported as new: both lock the inode and
// look at `accounted`.
//
// Eviction against use. A descriptor is closed only by an evictor that holds the one and only pin,
// as counted under mutex_; a pin taken while the evictor was asking for the file handle makes it
// give up. Two requests that open an evicted inode at the same time both succeed: the second
// finds the first one's descriptor installed and closes its own.
//
// An inode number that is used again. The lower filesystem gives the number of a deleted inode to a
// new one, while our slot of the deleted one still lives (open, or not yet forgotten), so that two
// inodes have the same key. Two rules make a key in keys_ trustworthy all the same:
//
//   1. A slot with a descriptor is right: the descriptor keeps the lower inode, and with it its
//      number, from being freed. Therefore an inode without a name keeps its descriptor until its
//      slot is freed, and a slot leaves keys_ before its descriptor is closed for good.
//   2. A slot without a descriptor is not believed: the inode may have been deleted behind our back
//      since the eviction. A lookup that meets one compares identities (the file handle, which
//      has the inode's generation in it, or the birth time). If they differ the old slot leaves
//      keys_: its node id stays valid until it is forgotten, but what needs its descriptor is
//      ESTALE, because the handle, or the name and the birth time, no longer match.
//
// An unlinked inode leaves keys_ at once although rule 1 does not need it: on a network filesystem
// the server may use a number again that a client still holds open. An O_TMPFILE stays in keys_,
// since it may get a name, and has a descriptor all the time.
//
// Without file handles an inode is opened again by its parent and the name under which it was last
// seen. The parent's slot is kept as long as a child relies on it. While a rename or an unlink
// makes that name wrong the inode is pinned, so that nobody needs the name. An inode with several
// names keeps its descriptor, since it is not known which of them go; so does one that is looked up
// by another name while it is open, since the look-up may be older than a rename.
//
// Node ids. The generation of a slot grows when it is freed; a slot whose generation is used up
// (2^32 inodes) is not used again. Slot 1 is the root, which is pinned as long as the table lives.
//
// An InodeRef or PinnedInode must never end with mutex_ held, since its end takes it.

namespace tally::fs {

InodeRef::~InodeRef() {
  if (inode_ != nullptr) table_->drop(*inode_, {.references = 1});
}

InodeRef InodeRef::share() const {
  if (inode_ == nullptr) return {};
  MutexLock lock(table_->mutex_);
  return table_->refer(*inode_);
}

PinnedInode::~PinnedInode() {
  Inode* inode = std::exchange(ref_.inode_, nullptr);
  if (inode != nullptr) ref_.table_->drop(*inode, {.references = 1, .pins = 1});
}

InodeLock::InodeLock(InodeTable& table,
                     std::array<const Inode*, inodes_max> inodes) TALLY_NO_THREAD_SAFETY_ANALYSIS {
  std::size_t count = 0;
  for (const Inode* inode : inodes)
    if (inode != nullptr)
      locked_[count++] = &table.inode_locks_[inode->id() % InodeTable::lock_count];
  const auto end = locked_.begin() + static_cast<std::ptrdiff_t>(count);
  std::sort(locked_.begin(), end, std::less<>());
  std::fill(std::unique(locked_.begin(), end), locked_.end(), nullptr);
  for (Mutex* mutex : locked_)
    if (mutex != nullptr) mutex->lock();
}

InodeLock::~InodeLock() TALLY_NO_THREAD_SAFETY_ANALYSIS {
  for (Mutex* mutex : locked_)
    if (mutex != nullptr) mutex->unlock();
}

InodeTable::InodeTable(int source_fd, uint32_t capacity, DescriptorBudget& budget, DirTree& tree)
    : budget_(budget),
      tree_(tree),
      keys_(capacity),
      slots_(std::size_t{capacity} + 1),
      names_(std::size_t{capacity} + 1) {
  Result<CountedFd> fd =
      open_descriptor([&] { return ::openat(source_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC); });
  const Result<FileStat> stat = fd ? stat_fd(fd->get()) : std::unexpected(fd.error());
  if (!stat)
    throw std::system_error(stat.error().value, std::generic_category(), "root of the source");
  const MountIndex mount = handles_.add_mount(stat->mount_id, fd->get());

  MutexLock lock(mutex_);
  root_ = pin_open(*create(*fd, *stat, mount));
  assert(root_->id() == 1);
}

InodeTable::~InodeTable() {
  root_ = {};
  MutexLock lock(mutex_);
  for (uint32_t slot = 1; slot <= slots_touched_; ++slot) {
    Inode& inode = slots_[slot];
    if (inode.in_use_ && inode.fd_ >= 0) CountedFd(budget_, UniqueFd(inode.fd_));
  }
}

Result<InodeRef> InodeTable::get(NodeId id) {
  MutexLock lock(mutex_);
  Inode* inode = live(id);
  if (inode == nullptr) return failure(ESTALE);
  return refer(*inode);
}

InodeRef InodeTable::find(const FileKey& key, int directory_fd, const char* name) {
  InodeRef inode;
  {
    MutexLock lock(mutex_);
    Inode* const known = keyed(key);
    if (known == nullptr) return {};
    inode = refer(*known);
    // What is open keeps its number.
    if (known->fd_ >= 0) return inode;
  }
  const Result<Identity> found = handles_.identify(inode->mount_, directory_fd, name);
  MutexLock lock(mutex_);
  const bool is_same =
      found &&
      (inode->fd_ >= 0 || (found->kind != Identity::Kind::none && inode->identity_ == *found));
  return is_same ? std::move(inode) : InodeRef();
}

Result<PinnedInode> InodeTable::find_or_create(CountedFd path_fd, const FileStat& stat,
                                               const Inode* parent, const char* name) {
  const MountIndex mount = handles_.add_mount(stat.mount_id, path_fd.get());
  std::optional<Identity> identity;
  PinnedInode found;
  Inode* former_parent = nullptr;
  while (true) {
    {
      MutexLock lock(mutex_);
      Inode* inode = keyed(stat.key);
      const bool was_open = inode != nullptr && inode->fd_ >= 0;
      if (inode != nullptr && inode->fd_ < 0 && identity.has_value()) {
        if (inode->identity_ == *identity && inode->type_ == (stat.mode & S_IFMT)) {
          take_over(*inode, path_fd);
        } else {
          keys_.erase(inode->key_, inode->slot_);
          inode = nullptr;
        }
      }
      if (inode == nullptr) inode = create(path_fd, stat, mount);
      if (inode == nullptr) break;
      if (mount != root_mount)
        std::atomic_ref(inode->restrictions_)
            .fetch_or(static_cast<uint8_t>(handles_.restrictions(mount)));
      if (inode->fd_ >= 0) {
        found = pin_open(*inode);
        // A rename may have given what is open a newer name since ours was looked up.
        if (parent != nullptr && was_open && !goes_by(*inode, *parent, name))
          inode->kept_open_ = true;
        else if (parent != nullptr)
          former_parent = set_name(*inode, *parent, name, stat.nlink);
        break;
      }
    }
    const Result<Identity> taken = handles_.identify(mount, path_fd.get());
    if (!taken) return std::unexpected(taken.error());
    identity = *taken;
  }
  if (!found) {
    log_full();
    return failure(ENFILE);
  }
  if (former_parent != nullptr) drop(*former_parent, {.references = 1});
  return found;
}

void InodeTable::log_full() {
  if (full_logged_.test_and_set()) return;
  TALLY_HOT_PATH_PAUSE("logging allocates");
  spdlog::error(
      "no more files can be looked up: the kernel remembers {}, and there is room for no more; "
      "have it forget some: echo 2 > /proc/sys/vm/drop_caches",
      size());
}

void InodeTable::add_lookup(const Inode& inode) {
  MutexLock lock(mutex_);
  ++slots_[inode.slot_].lookups_;
}

void InodeTable::forget(NodeId id, uint64_t lookups) {
  const Result<InodeRef> inode = get(id);
  if (inode) drop(**inode, {.lookups = lookups});
}

void InodeTable::named(const PinnedInode& inode, const Inode& parent, const char* name,
                       uint32_t nlink) {
  Inode* former_parent = nullptr;
  {
    MutexLock lock(mutex_);
    inode->nameless_ = false;
    former_parent = set_name(*inode, parent, name, nlink);
  }
  if (former_parent != nullptr) drop(*former_parent, {.references = 1});
}

void InodeTable::unlinked(const PinnedInode& inode) {
  Inode* former_parent = nullptr;
  {
    MutexLock lock(mutex_);
    keys_.erase(inode->key_, inode->slot_);
    inode->nameless_ = true;
    if (inode->parent_ != 0) former_parent = &slots_[std::exchange(inode->parent_, 0)];
  }
  if (former_parent != nullptr) drop(*former_parent, {.references = 1});
}

uint32_t InodeTable::size() const {
  MutexLock lock(mutex_);
  return size_;
}

bool InodeTable::is_in_use(const Inode& inode) const {
  MutexLock lock(mutex_);
  return inode.references_ > 1;
}

Inode* InodeTable::live(NodeId id) {
  const auto slot = static_cast<uint32_t>(id);
  if (slot == 0 || slot > slots_touched_) return nullptr;
  Inode& inode = slots_[slot];
  return inode.in_use_ && inode.id() == id ? &inode : nullptr;
}

Inode* InodeTable::keyed(const FileKey& key) {
  const uint32_t slot = keys_.find(key);
  return slot == 0 ? nullptr : &slots_[slot];
}

Inode* InodeTable::acquire_slot() {
  Inode* inode = free_.pop_front();
  if (inode == nullptr) {
    if (slots_touched_ + 1 == slots_.capacity()) return nullptr;
    inode = &slots_[++slots_touched_];
  }
  const uint32_t generation = inode->generation_;
  inode = ::new (static_cast<void*>(inode)) Inode();
  inode->slot_ = static_cast<uint32_t>(inode - &slots_[0]);
  inode->generation_ = generation;
  inode->in_use_ = true;
  ++size_;
  return inode;
}

/// A slot, open and not pinned, for an inode that is in none. Null when the table is full.
Inode* InodeTable::create(CountedFd& path_fd, const FileStat& stat, MountIndex mount) {
  Inode* inode = acquire_slot();
  if (inode == nullptr) return nullptr;
  inode->key_ = stat.key;
  inode->type_ = static_cast<uint16_t>(stat.mode & S_IFMT);
  inode->nameless_ = stat.nlink == 0;
  inode->mount_ = mount;
  take_over(*inode, path_fd);
  keys_.insert(stat.key, inode->slot_);
  return inode;
}

InodeRef InodeTable::refer(Inode& inode) {
  ++inode.references_;
  return {*this, inode};
}

InodeTable::Remains InodeTable::free_if_unused(Inode& inode) {
  assert(inode.in_use_);
  if (inode.lookups_ != 0 || inode.references_ != 0) return {};
  assert(inode.pins_ == 0);
  if (inode.fd_ >= 0 && inode.evictable()) idle_.remove(inode);
  keys_.erase(inode.key_, inode.slot_);
  const Remains remains{.fd = inode.fd_,
                        .held_dir = inode.dir,
                        .parent = inode.parent_ == 0 ? nullptr : &slots_[inode.parent_]};
  inode.in_use_ = false;
  --size_;
  if (++inode.generation_ != 0) free_.push_front(inode);
  return remains;
}

void InodeTable::drop(Inode& inode, Dropped dropped) {
  // A loop and not a recursion: the end of a deep directory may be the end of all its ancestors.
  for (Inode* next = &inode; next != nullptr; dropped = {.references = 1}) {
    Remains remains;
    {
      MutexLock lock(mutex_);
      assert(next->references_ >= dropped.references && next->pins_ >= dropped.pins);
      next->lookups_ -= std::min(next->lookups_, dropped.lookups);
      next->references_ -= dropped.references;
      next->pins_ -= dropped.pins;
      if (dropped.pins != 0 && next->pins_ == 0 && next->evictable()) idle_.push_back(*next);
      remains = free_if_unused(*next);
    }
    if (remains.fd >= 0) CountedFd(budget_, UniqueFd(remains.fd));
    if (remains.held_dir) tree_.release(remains.held_dir);
    next = remains.parent;
  }
}

/// Whether this is the name by which the inode would be opened again, or it would be by none.
bool InodeTable::goes_by(const Inode& inode, const Inode& parent, const char* name) const {
  return inode.parent_ == 0 ||
         (inode.parent_ == parent.slot_ && std::strcmp(names_[inode.slot_].data(), name) == 0);
}

/// Remembers how to open the inode again where it has to be done by name. The inode is pinned.
/// Returns the former parent, which loses a reference.
Inode* InodeTable::set_name(Inode& inode, const Inode& parent, const char* name, uint32_t nlink) {
  if (handles_.usable(inode.mount_) || inode.nameless_ || inode.slot_ == 1) return nullptr;
  bool unreliable = nlink > 1 && !inode.is_directory();
  // If directories were moved behind our back, one may appear to be below itself.
  for (uint32_t slot = parent.slot_; slot != 0; slot = slots_[slot].parent_)
    unreliable |= slot == inode.slot_;
  if (unreliable) {
    inode.kept_open_ = true;
    return nullptr;
  }
  Name& stored = names_[inode.slot_];
  const std::size_t length = std::min(std::strlen(name), stored.size() - 1);
  std::memcpy(stored.data(), name, length);
  stored[length] = '\0';
  if (inode.parent_ == parent.slot_) return nullptr;
  const uint32_t former = std::exchange(inode.parent_, parent.slot_);
  ++slots_[parent.slot_].references_;
  return former == 0 ? nullptr : &slots_[former];
}

}  // namespace tally::fs
