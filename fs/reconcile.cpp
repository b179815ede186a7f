// What requests tell the accounts. Everything here happens after the lower operation, with the
// locks held under which it was observed, and can't fail: what can't be accounted is marked.

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fs/attributes.hpp"
#include "fs/filesystem.hpp"
#include "fs/settler.hpp"

namespace tally::fs {

/// Accounts the inode as `fd`, open on it, shows it now.
Result<struct statx> Filesystem::observe(Inode& inode, int fd, bool mutated) {
  const auto lock = inodes_.lock(inode);
  auto stx = statx_fd(fd);
  if (stx) account_observed(inode, FileStat::from(*stx), mutated);
  return stx;
}

/// After an operation on an open file. A failed statx leaves the difference to the next one.
void Filesystem::observe_after(OpenFile& file, bool mutated) {
  if (mutated) file.written.store(true, std::memory_order_relaxed);
  const auto now = observe(*file.inode, file.fd.get(), mutated);
  // Should the settler have no room, release() will see to it.
  if (mutated && now && now->stx_nlink != 0) static_cast<void>(settle_later(*file.inode, true));
}

/// `inode` goes by a name in `parent`, and that has not been accounted yet.
void Filesystem::account_first_contact(Inode& inode, const Inode& parent, const EntryStat& now) {
  if (inode.is_directory()) return account_directory_found(inode, parent, now);
  inode.accounted = true;
  if (parent.dir) accounts_.file_found(inode.record, parent.dir, now.stat);
}

/// A directory goes by a name in `parent`: it has a node there from now on, if there is room.
void Filesystem::account_directory_found(Inode& inode, const Inode& parent, const EntryStat& now) {
  inode.accounted = true;
  if (!parent.dir) return;
  const auto found = accounts_.dir_found(parent.dir, now.stat, now.is_mount_root);
  if (!found) return suspect(parent);
  // The node that it had was perhaps removed, when it was moved or was gone behind our back.
  if (const DirIndex former = inode.exchange_dir(*found)) accounts_.tree().release(former);
}

void Filesystem::account_observed(Inode& inode, const FileStat& now, bool mutated) {
  if (inode.is_directory()) {
    if (inode.dir) accounts_.dir_observed(inode.dir, now, mutated);
    return;
  }
  const bool changed = inode.record.size != now.size || inode.record.ctime_ns != now.ctime_ns;
  if (changed && !mutated) inode.pages_current = false;
  accounts_.file_observed(inode.record, now, mutated);
}

void Filesystem::account_added(Inode& inode, const Inode& parent, const FileStat& now) {
  inode.accounted = true;
  if (!parent.dir) return;
  if (!inode.is_directory()) {
    accounts_.name_added(inode.record, parent.dir, now);
    return;
  }
  if (const DirIndex stale = accounts_.tree().find(now.key)) {
    // Removed behind our back, and the inode number is in use again.
    suspect(parent);
    accounts_.dir_removed(stale);
  }
  const auto dir = accounts_.dir_created(parent.dir, now);
  if (dir) {
    inode.dir = *dir;
  } else {
    suspect(parent);
  }
}

/// A name of the inode in `parent` is gone. Returns whether the inode is: it has no other name, or
/// the lower filesystem no longer knows it by the descriptor that we have.
bool Filesystem::account_removed(const PinnedInode& inode, const Inode& parent) {
  if (inode->is_directory()) {
    if (inode->dir) accounts_.dir_removed(inode->dir);
    return true;
  }
  auto now = stat_fd(inode.fd());
  // Filesystems that go by paths, as those of some networks do, lose sight of an inode with its
  // name.
  const bool is_lost = !now && (now.error().value == ENOENT || now.error().value == ESTALE);
  if (is_lost) now = counted_without_a_name(*inode);
  if (!now) {
    suspect(parent);
    return false;
  }
  accounts_.name_removed(inode->record, parent.dir, *now, inode->open_handles != 0);
  return is_lost || now->nlink == 0;
}

/// What a file was when it was last seen, with one name less.
FileStat Filesystem::counted_without_a_name(const Inode& inode) {
  const FileRecord& record = inode.record;
  const uint32_t nlink = record.link ? accounts_.links().counted(record.link).nlink : 1;
  return {.key = inode.key(),
          .nlink = nlink - std::min(nlink, 1U),
          .size = record.size,
          .blocks = record.blocks,
          .ctime_ns = record.ctime_ns};
}

/// The inode was renamed. Returns its link count, 0 if that is not known.
uint32_t Filesystem::account_moved(const PinnedInode& inode, const Inode& from, const Inode& to) {
  const auto now = stat_fd(inode.fd());
  if (!now || (inode->is_directory() && (!inode->dir || !to.dir))) {
    suspect(from);
    suspect(to);
  } else if (inode->is_directory()) {
    accounts_.dir_moved(inode->dir, to.dir, *now);
  } else if (from.dir && to.dir) {
    accounts_.name_moved(inode->record, from.dir, to.dir, *now);
  } else if (to.dir) {
    accounts_.name_added(inode->record, to.dir, *now);
  } else if (from.dir) {
    accounts_.name_removed(inode->record, from.dir, *now, false);
  }
  return now ? now->nlink : 0;
}

/// A name in a directory came or went: its own size and ctime, too, may have changed.
void Filesystem::account_parent(const PinnedInode& parent) {
  if (const auto now = stat_fd(parent.fd())) account_observed(*parent, *now, false);
}

void Filesystem::suspect(const Inode& directory) {
  if (directory.dir) accounts_.tree().mark_suspect(directory.dir);
}

/// The inode's last name is gone, and with it what there was to settle: a file that is written and
/// removed must give its blocks back at once.
void Filesystem::retire(const PinnedInode& inode) {
  inodes_.unlinked(inode);
  const bool was_settling = [&] {
    const auto lock = inodes_.lock(*inode);
    return std::exchange(inode->settle_pending, false);
  }();
  if (was_settling) inodes_.forget(inode->id(), 1);
}

/// Has the blocks allocated that a file is yet to have, and waits for it: ext4 allocates when the
/// writing begins, but puts its tree of extents in order when it ends. Returns whether there are
/// blocks past the end of the file, which the lower filesystem may take back some time: XFS does,
/// of files that are opened again and again to append. A file that can't be opened for reading
/// stays as it is.
bool Filesystem::write_back(const PinnedInode& inode) {
  if (!inode->is_regular()) return false;
  const auto now = statx_fd(inode.fd());
  if (!now || now->stx_nlink == 0) return false;  // the totals don't count what has no name
  const auto fd = reopen(inode.fd(), O_RDONLY);
  if (!fd) return false;
  const uint64_t end = (now->stx_size + now->stx_blksize - 1) / now->stx_blksize * now->stx_blksize;
  struct fiemap past_end = {};  // asks for the number of extents only (fiemap(7))
  past_end.fm_start = end;
  past_end.fm_length = FIEMAP_MAX_OFFSET - end;
  past_end.fm_flags = FIEMAP_FLAG_SYNC;
  if (::ioctl(fd->get(), FS_IOC_FIEMAP, &past_end) == 0) return past_end.fm_mapped_extents != 0;
  // Filesystems that have no blocks to show (tmpfs, networks).
  ::sync_file_range(fd->get(), 0, 0, SYNC_FILE_RANGE_WRITE_AND_WAIT);
  return false;
}

/// Accounts what was written to as it is now. Returns whether that may still change by itself.
bool Filesystem::look_again(const InodeRef& inode, Settling settling) {
  const auto pinned = inodes_.pin(inode);
  if (!pinned) return false;
  const bool may_change = settling == Settling::written_back && write_back(*pinned);
  static_cast<void>(observe(*inode, pinned->fd(), false));
  return may_change;
}

/// Has the settler look at the inode, unless it is about to. `written`: because it was just written
/// to, not for another look. False, with nothing done, if the settler has no room.
///
/// While `settle_pending` is set the inode has one lookup of ours, so that it stays known: whoever
/// clears it takes that back.
bool Filesystem::settle_later(Inode& inode, bool written) {
  if (settler_ == nullptr) return true;
  {
    const auto lock = inodes_.lock(inode);
    if (written) inode.looks = 0;
    if (inode.settle_pending || !inodes_.has_name(inode)) return true;  // retired: nothing to do
    inode.settle_pending = true;
    inodes_.add_lookup(inode);
  }
  if (settler_->add(inode.id())) return true;
  {
    const auto lock = inodes_.lock(inode);
    if (!std::exchange(inode.settle_pending, false)) return true;  // retired meanwhile
  }
  inodes_.forget(inode.id(), 1);
  return false;
}

void Filesystem::settle(NodeId node, Settling settling) {
  // XFS takes back what it has allocated ahead every five minutes, and when it can't get at the
  // inode, the next time (speculative_prealloc_lifetime in its documentation).
  constexpr uint8_t looks_max = 20;
  const auto inode = inodes_.get(node);
  if (!inode) return;  // retired and forgotten
  uint8_t looks = 0;
  {
    const auto lock = inodes_.lock(**inode);
    // First, so that what is written from now on is looked at again.
    if (!std::exchange((*inode)->settle_pending, false)) return;
    looks = ++(*inode)->looks;
  }
  const bool may_change = look_again(*inode, settling);
  if (may_change && looks < looks_max) static_cast<void>(settle_later(**inode, false));
  inodes_.forget(node, 1);
}

}  // namespace tally::fs
