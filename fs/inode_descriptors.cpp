// The cache of O_PATH descriptors in the InodeTable: pinning, evicting, opening again. The rules
// are at the beginning of inode_table.cpp.

#include <fcntl.h>

#include <cstring>

#include "fs/inode_table.hpp"

namespace tally::fs {

Result<PinnedInode> InodeTable::pin(NodeId id) {
  InodeRef inode;
  {
    MutexLock lock(mutex_);
    Inode* known = live(id);
    if (known == nullptr) return failure(ESTALE);
    if (known->fd_ >= 0) return pin_open(*known);
    inode = refer(*known);
  }
  return reopen(inode);
}

Result<PinnedInode> InodeTable::pin(const InodeRef& inode) {
  {
    MutexLock lock(mutex_);
    if (inode->fd_ >= 0) return pin_open(*inode);
  }
  return reopen(inode);
}

/// Gives a closed and unpinned inode its descriptor.
void InodeTable::take_over(Inode& inode, CountedFd& path_fd) {
  inode.fd_ = path_fd.release();
  if (inode.evictable()) idle_.push_back(inode);
}

/// Pins an inode that has a descriptor.
PinnedInode InodeTable::pin_open(Inode& inode) {
  if (inode.pins_ == 0 && inode.evictable()) idle_.remove(inode);
  ++inode.pins_;
  return PinnedInode(refer(inode));
}

Result<PinnedInode> InodeTable::reopen(const InodeRef& inode) {
  return handles_.usable(inode->mount_) ? reopen_by_handle(inode) : reopen_by_name(inode);
}

Result<PinnedInode> InodeTable::reopen_by_handle(const InodeRef& inode) {
  Result<CountedFd> opened = open_descriptor([&] {
    Result<UniqueFd> fd = handles_.open(inode->mount_, inode->identity_);
    if (fd) return fd->release();
    errno = fd.error().value;
    return -1;
  });
  if (opened) return install(*inode, *opened);

  // Perhaps it was unlinked in between, by somebody who has opened it before.
  MutexLock lock(mutex_);
  if (inode->fd_ >= 0) return pin_open(*inode);
  return std::unexpected(opened.error());
}

Result<PinnedInode> InodeTable::reopen_by_name(const InodeRef& inode) {
  // Each round opens the topmost ancestor that is closed, below one that is open, and keeps it
  // pinned for the next round. By and by, and not recursively: a path may be deep.
  PinnedInode reached;
  while (true) {
    InodeRef closed;
    PinnedInode parent;
    Name name;
    {
      MutexLock lock(mutex_);
      Inode* topmost = &*inode;
      if (topmost->fd_ >= 0) return pin_open(*topmost);
      while (topmost->parent_ != 0 && slots_[topmost->parent_].fd_ < 0)
        topmost = &slots_[topmost->parent_];
      if (topmost->parent_ == 0) return failure(ESTALE);
      closed = refer(*topmost);
      parent = pin_open(slots_[topmost->parent_]);
      name = names_[topmost->slot_];
    }
    Result<CountedFd> opened = open_named(parent, name.data(), *closed);
    if (opened) {
      reached = install(*closed, *opened);
      continue;
    }
    // Perhaps it was renamed or unlinked in between, by somebody who has opened it before.
    MutexLock lock(mutex_);
    const bool same_name = closed->parent_ == parent->slot_ &&
                           std::strcmp(names_[closed->slot_].data(), name.data()) == 0;
    if (closed->fd_ < 0 && same_name) return std::unexpected(opened.error());
  }
}

/// Opens what has this name, if it is the inode that is expected. ESTALE if not.
Result<CountedFd> InodeTable::open_named(const PinnedInode& parent, const char* name,
                                         const Inode& expected) {
  Result<CountedFd> opened =
      open_descriptor([&] { return ::openat(parent.fd(), name, O_PATH | O_NOFOLLOW | O_CLOEXEC); });
  if (!opened) return failure(opened.error().value == ENOENT ? ESTALE : opened.error().value);
  const Result<FileStat> stat = stat_fd(opened->get());
  if (!stat) return std::unexpected(stat.error());
  const Result<Identity> identity = handles_.identify(expected.mount_, opened->get());
  if (!identity) return std::unexpected(identity.error());
  if (stat->key != expected.key_ || *identity != expected.identity_) return failure(ESTALE);
  return opened;
}

/// Pins an inode that somebody has just opened, with that descriptor if it has no other by now.
PinnedInode InodeTable::install(Inode& inode, CountedFd& path_fd) {
  MutexLock lock(mutex_);
  if (inode.fd_ < 0) take_over(inode, path_fd);
  return pin_open(inode);
}

Status InodeTable::claim_descriptor() {
  while (!budget_.try_claim())
    if (!evict_one()) return failure(ENFILE);
  return {};
}

/// Closes the descriptor that was not used for the longest time. False if there is none to close.
bool InodeTable::evict_one() {
  while (true) {
    PinnedInode victim;
    {
      MutexLock lock(mutex_);
      Inode* oldest = idle_.pop_front();
      if (oldest == nullptr) return false;
      ++oldest->pins_;
      victim = PinnedInode(refer(*oldest));
    }
    // Written once, before the inode is closed for the first time; whoever reads it without the
    // lock has found the inode closed.
    Result<Identity> identity = victim->identity_;
    if (identity->kind == Identity::Kind::none)
      identity = handles_.identify(victim->mount_, victim.fd());

    CountedFd closing;  // both end when the lock is released
    InodeRef unpinned;
    MutexLock lock(mutex_);
    if (!identity || (victim->parent_ == 0 && !handles_.usable(victim->mount_))) {
      victim->kept_open_ = true;
      continue;
    }
    if (victim->identity_ != *identity) victim->identity_ = *identity;
    if (victim->pins_ != 1 || !victim->evictable()) continue;
    // The pin ends with the descriptor: what is pinned is open, always.
    --victim->pins_;
    closing = CountedFd(budget_, UniqueFd(std::exchange(victim->fd_, -1)));
    unpinned = std::move(victim.ref_);
    return true;
  }
}

}  // namespace tally::fs
