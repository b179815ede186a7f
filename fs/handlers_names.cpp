// Names: mknod, mkdir, symlink, link, unlink, rmdir. The kernel holds the locks of the parent, and
// of the inode for link, unlink and rmdir, from before the request until after the reply: no other
// request changes what is between the lower operation and its account, and none that meets it for
// the first time accounts it (NameLocks).

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include <spdlog/spdlog.h>

#include "core/hot_path_guard.hpp"
#include "fs/attributes.hpp"
#include "fs/descriptor_path.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

namespace {

void log_no_room_for_directory(uint32_t directories_max) {
  static std::atomic_flag logged;
  if (logged.test_and_set()) return;
  TALLY_HOT_PATH_PAUSE("logging allocates");
  spdlog::error(
      "mkdir refused: {} directories are counted and there is room for no more; "
      "mount with a larger -o max_dirs",
      directories_max);
}

}  // namespace

Result<fuse_entry_param> Filesystem::mknod(const Caller& caller, NodeId parent_id, const char* name,
                                           mode_t mode, dev_t device) {
  TALLY_HOT_PATH("mknod");
  const auto parent = inodes_.pin(parent_id);
  if (!parent) return std::unexpected(parent.error());
  const Status became = credentials_.become_creator(caller);
  if (!became) return std::unexpected(became.error());
  const NameLocks::Change change(names_, **parent);
  if (::mknodat(parent->fd(), name, mode, device) != 0) return last_error();
  return entry_of_created(*parent, name);
}

Result<fuse_entry_param> Filesystem::mkdir(const Caller& caller, NodeId parent_id, const char* name,
                                           mode_t mode) {
  TALLY_HOT_PATH("mkdir");
  const auto parent = inodes_.pin(parent_id);
  if (!parent) return std::unexpected(parent.error());
  const DirectoryRoom room = accounts_.room_for_directory();
  if (!room) {
    log_no_room_for_directory(options_.directories_max);
    return failure(ENOSPC);
  }
  const Status became = credentials_.become_creator(caller);
  if (!became) return std::unexpected(became.error());
  const NameLocks::Change change(names_, **parent);
  if (::mkdirat(parent->fd(), name, mode) != 0) return last_error();
  return entry_of_created(*parent, name);
}

Result<fuse_entry_param> Filesystem::symlink(const Caller& caller, NodeId parent_id,
                                             const char* name, const char* target) {
  TALLY_HOT_PATH("symlink");
  const auto parent = inodes_.pin(parent_id);
  if (!parent) return std::unexpected(parent.error());
  const Status became = credentials_.become_creator(caller);
  if (!became) return std::unexpected(became.error());
  const NameLocks::Change change(names_, **parent);
  if (::symlinkat(target, parent->fd(), name) != 0) return last_error();
  return entry_of_created(*parent, name);
}

Result<fuse_entry_param> Filesystem::link(NodeId node, NodeId parent_id, const char* name) {
  TALLY_HOT_PATH("link");
  auto inode = inodes_.pin(node);
  if (!inode) return std::unexpected(inode.error());
  const auto parent = inodes_.pin(parent_id);
  if (!parent) return std::unexpected(parent.error());
  const Status became = credentials_.become_daemon();
  if (!became) return std::unexpected(became.error());
  const DescriptorPath self(inode->fd());
  const NameLocks::Change change(names_, **parent);
  if (::linkat(descriptors_.get(), self.name(), parent->fd(), name, AT_SYMLINK_FOLLOW) != 0)
    return last_error();

  const auto stx = [&]() -> Result<struct statx> {
    const auto lock = inodes_.lock(**parent, **inode);
    auto observed = statx_fd(inode->fd());
    if (observed) {
      account_added(**inode, **parent, FileStat::from(*observed));
    } else {
      suspect(**parent);
    }
    account_parent(*parent);
    return observed;
  }();
  if (!stx) return std::unexpected(stx.error());
  inodes_.named(*inode, **parent, name, stx->stx_nlink);
  return entry({.inode = *std::move(inode), .stx = *stx});
}

Status Filesystem::unlink(NodeId parent, const char* name) {
  TALLY_HOT_PATH("unlink");
  return remove_name(parent, name, 0);
}

Status Filesystem::rmdir(NodeId parent, const char* name) {
  TALLY_HOT_PATH("rmdir");
  return remove_name(parent, name, AT_REMOVEDIR);
}

Status Filesystem::remove_name(NodeId parent_id, const char* name, int flags) {
  const auto parent = inodes_.pin(parent_id);
  if (!parent) return std::unexpected(parent.error());
  // Opened first: when the name is gone, its descriptor is the only way to see what became of it.
  const auto victim = find(*parent, name);
  if (!victim) return std::unexpected(victim.error());
  if (const Status became = credentials_.become_daemon(); !became) return became;
  const NameLocks::Change change(names_, **parent);
  if (::unlinkat(parent->fd(), name, flags) != 0) return last_error();

  const PinnedInode& inode = victim->inode;
  bool is_gone = false;
  {
    const auto lock = inodes_.lock(**parent, *inode);
    is_gone = account_removed(inode, **parent);
    account_parent(*parent);
  }
  if (is_gone) retire(inode);
  return {};
}

Result<fuse_entry_param> Filesystem::entry_of_created(const PinnedInode& parent, const char* name) {
  const auto created = adopt_created(parent, name);
  if (!created) return std::unexpected(created.error());
  return entry(*created);
}

/// Accounts what we have just made under a name that was free.
Result<Filesystem::Found> Filesystem::adopt_created(const PinnedInode& parent, const char* name) {
  auto path_fd = inodes_.open_descriptor(
      [&] { return ::openat(parent.fd(), name, O_PATH | O_NOFOLLOW | O_CLOEXEC); });
  if (!path_fd) {
    suspect(*parent);
    return std::unexpected(path_fd.error());
  }
  return adopt_created(parent, name, *std::move(path_fd));
}

Result<Filesystem::Found> Filesystem::adopt_created(const PinnedInode& parent, const char* name,
                                                    CountedFd path_fd) {
  const auto made = stat_fd(path_fd.get());
  auto inode = made ? inodes_.find_or_create(std::move(path_fd), *made, &*parent, name)
                    : Result<PinnedInode>(std::unexpected(made.error()));
  if (!inode) {
    suspect(*parent);
    return std::unexpected(inode.error());
  }
  const auto lock = inodes_.lock(*parent, **inode);
  const auto stx = statx_fd(inode->fd());
  if (!stx) {
    suspect(*parent);
    return std::unexpected(stx.error());
  }
  account_added(**inode, *parent, FileStat::from(*stx));
  account_parent(parent);
  return Found{.inode = *std::move(inode), .stx = *stx};
}

}  // namespace tally::fs
