// What requests tell the accounts. Everything here happens after the lower operation, with the
// locks held under which it was observed, and can't fail: what can't be accounted is marked.

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fs/attributes.hpp"
#include "fs/filesystem.hpp"

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
  static_cast<void>(observe(*file.inode, file.fd.get(), mutated));
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
  if (parent.dir) accounts_.name_removed(inode->record, parent.dir, *now, inode->open_handles != 0);
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
/// writing begins, but puts its tree of extents in order when it ends. A file that can't be opened
/// for reading stays as it is.
void Filesystem::write_back(const PinnedInode& inode) {
  if (!inode->is_regular()) return;
  const auto now = stat_fd(inode.fd());
  if (!now || now->nlink == 0) return;  // the totals don't count what has no name
  const auto fd = reopen(inode.fd(), O_RDONLY);
  if (fd) ::sync_file_range(fd->get(), 0, 0, SYNC_FILE_RANGE_WRITE_AND_WAIT);
}

/// While `settle_pending` is set the inode has one lookup of ours: whoever clears it takes that
/// back.
void Filesystem::settle(NodeId node, Settling settling) {
  const auto inode = inodes_.get(node);
  if (!inode) return;  // retired and forgotten
  {
    const auto lock = inodes_.lock(**inode);
    // First, so that what is written and released from now on is looked at again.
    if (!std::exchange((*inode)->settle_pending, false)) return;
  }
  if (const auto pinned = inodes_.pin(*inode)) {
    if (settling == Settling::written_back) write_back(*pinned);
    static_cast<void>(observe(**pinned, pinned->fd(), false));
  }
  inodes_.forget(node, 1);
}

}  // namespace tally::fs
