// Lookup and attributes.

#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "core/hot_path_guard.hpp"
#include "fs/attributes.hpp"
#include "fs/descriptor_path.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

namespace {

Status status_of(int result) {
  if (result != 0) return last_error();
  return {};
}

timespec time_to_set(const timespec& wanted, bool set, bool now) {
  if (now) return {.tv_sec = 0, .tv_nsec = UTIME_NOW};
  if (!set) return {.tv_sec = 0, .tv_nsec = UTIME_OMIT};
  return wanted;
}

}  // namespace

Result<fuse_entry_param> Filesystem::lookup(NodeId parent_id, const char* name) {
  TALLY_HOT_PATH("lookup");
  const auto parent = inodes_.pin(parent_id);
  if (!parent) return std::unexpected(parent.error());
  const auto found = find(*parent, name);
  if (!found) return std::unexpected(found.error());
  return entry(*found);
}

Result<Filesystem::Target> Filesystem::target_of(NodeId node, OpenFile* file) {
  if (file != nullptr) return Target{.pinned = {}, .inode = *file->inode, .fd = file->fd.get()};
  auto pinned = inodes_.pin(node);
  if (!pinned) return std::unexpected(pinned.error());
  Inode& inode = **pinned;
  const int fd = pinned->fd();
  return Target{.pinned = *std::move(pinned), .inode = inode, .fd = fd};
}

Result<struct stat> Filesystem::getattr(NodeId node, OpenFile* file) {
  TALLY_HOT_PATH("getattr");
  const auto target = target_of(node, file);
  if (!target) return std::unexpected(target.error());
  const auto stx = observe(target->inode, target->fd, false);
  if (!stx) return std::unexpected(stx.error());
  return attributes(target->inode, *stx);
}

Result<struct statx> Filesystem::statx(NodeId node, OpenFile* file) {
  TALLY_HOT_PATH("statx");
  const auto target = target_of(node, file);
  if (!target) return std::unexpected(target.error());
  auto stx = observe(target->inode, target->fd, false);
  if (!stx) return stx;
  const struct stat shown = attributes(target->inode, *stx);
  stx->stx_ino = shown.st_ino;
  stx->stx_mode = static_cast<uint16_t>(shown.st_mode);
  stx->stx_rdev_major = major(shown.st_rdev);
  stx->stx_rdev_minor = minor(shown.st_rdev);
  stx->stx_size = static_cast<uint64_t>(shown.st_size);
  return stx;
}

Result<struct stat> Filesystem::setattr(const Caller& caller, NodeId node,
                                        const struct stat& wanted, int to_set, OpenFile* file) {
  TALLY_HOT_PATH("setattr");
  const auto target = target_of(node, file);
  if (!target) return std::unexpected(target.error());
  Status changed = change_attributes(caller, target->fd, wanted, to_set, file);
  // Before a write that is to clear set-id bits the kernel asks in the same way as for a chown(2)
  // that sets nothing, which not everybody may who may write: the write itself clears them.
  if (to_set == 0 && !changed && changed.error().value == EPERM && is_open(target->inode))
    changed = {};
  // Also after a failure: of several changes the first ones may have been made.
  const auto stx = observe(target->inode, target->fd, changed.has_value());
  if (!changed) return std::unexpected(changed.error());
  if (!stx) return std::unexpected(stx.error());
  if (to_set & FUSE_SET_ATTR_SIZE && stx->stx_nlink != 0)
    static_cast<void>(settle_later(target->inode, true));
  return attributes(target->inode, *stx);
}

bool Filesystem::is_open(Inode& inode) {
  const auto lock = inodes_.lock(inode);
  return inode.open_handles != 0;
}

/// `fd`: on the inode to change, O_PATH will do.
Status Filesystem::change_attributes(const Caller& caller, int fd, const struct stat& wanted,
                                     int to_set, OpenFile* file) {
  const DescriptorPath self(fd);
  if (const Status became = credentials_.become_daemon(); !became) return became;
  if (to_set & FUSE_SET_ATTR_MODE) {
    const Status set = status_of(::fchmodat(descriptors_.get(), self.name(), wanted.st_mode, 0));
    if (!set) return set;
  }
  // A request to set nothing is a chown(2) that sets neither: it clears setuid and setgid, and the
  // kernel has not checked whether the caller may.
  constexpr auto same = static_cast<uid_t>(-1);
  if (to_set == 0)
    return credentials_.call_unprivileged(
        caller, [&] { return status_of(::fchownat(fd, "", same, same, AT_EMPTY_PATH)); });
  if (to_set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
    if (const Status became = become_writer(caller, fd); !became) return became;
    const uid_t uid = to_set & FUSE_SET_ATTR_UID ? wanted.st_uid : same;
    const gid_t gid = to_set & FUSE_SET_ATTR_GID ? wanted.st_gid : same;
    const Status set = status_of(::fchownat(fd, "", uid, gid, AT_EMPTY_PATH));
    if (!set) return set;
  }
  if (to_set & FUSE_SET_ATTR_SIZE) {
    // As the caller: without CAP_FSETID the lower filesystem clears setuid and setgid.
    if (const Status became = become_writer(caller, fd); !became) return became;
    const Status set = status_of(file != nullptr ? ::ftruncate(fd, wanted.st_size)
                                                 : ::truncate(self.path(), wanted.st_size));
    if (file != nullptr) file->written.store(true, std::memory_order_relaxed);
    if (!set) return set;
  }
  if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME)) {
    const std::array times = {
        time_to_set(wanted.st_atim, to_set & FUSE_SET_ATTR_ATIME, to_set & FUSE_SET_ATTR_ATIME_NOW),
        time_to_set(wanted.st_mtim, to_set & FUSE_SET_ATTR_MTIME,
                    to_set & FUSE_SET_ATTR_MTIME_NOW)};
    if (const Status became = credentials_.become_daemon(); !became) return became;
    return status_of(::utimensat(fd, "", times.data(), AT_EMPTY_PATH));
  }
  return {};
}

Result<std::size_t> Filesystem::readlink(NodeId node, std::span<char> target) {
  TALLY_HOT_PATH("readlink");
  const auto inode = inodes_.pin(node);
  if (!inode) return std::unexpected(inode.error());
  const ssize_t length = ::readlinkat(inode->fd(), "", target.data(), target.size());
  if (length < 0) return last_error();
  return static_cast<std::size_t>(length);
}

Result<struct statvfs> Filesystem::statfs(NodeId node) {
  TALLY_HOT_PATH("statfs");
  const auto inode = inodes_.pin(node);
  if (!inode) return std::unexpected(inode.error());
  struct statvfs statistics;
  if (::fstatvfs(inode->fd(), &statistics) != 0) return last_error();
  return statistics;
}

}  // namespace tally::fs
