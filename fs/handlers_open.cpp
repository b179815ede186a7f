// Open files: open, create, tmpfile, release.

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "core/hot_path_guard.hpp"
#include "fs/attributes.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

namespace {

/// The flags of the lower open. What the kernel has dealt with is left out; O_DIRECT too, because a
/// request's memory is never aligned.
constexpr int lower_flags(int flags) {
  return flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_NOFOLLOW | O_DIRECT);
}

/// Each write says whether it appends: fcntl(2) may change it at any time, and pages of a mapping
/// come through whatever handle is there. Opened with O_APPEND nevertheless, without which a file
/// with chattr +a can't be; there this fails and the flag stays.
void stop_appending(int fd, int flags) {
  if (flags & O_APPEND) ::fcntl(fd, F_SETFL, flags & ~O_APPEND);
}

}  // namespace

Result<Filesystem::Opened> Filesystem::open(const Caller& caller, NodeId node, int flags) {
  TALLY_HOT_PATH("open");
  const auto inode = inodes_.pin(node);
  if (!inode) return std::unexpected(inode.error());
  // O_TRUNC is a write: as the caller, it clears setuid and setgid.
  const Status became =
      flags & O_TRUNC ? become_writer(caller, inode->fd()) : credentials_.become(caller);
  if (!became) return std::unexpected(became.error());
  auto fd = reopen(inode->fd(), lower_flags(flags));
  if (!fd) return std::unexpected(fd.error());
  stop_appending(fd->get(), lower_flags(flags));
  return enter_open(*inode, *std::move(fd), flags & O_TRUNC);
}

/// Makes a handle of `fd`, a lower file of the inode that was just opened.
Result<Filesystem::Opened> Filesystem::enter_open(const PinnedInode& inode, CountedFd fd,
                                                  bool truncated) {
  const int lower_fd = fd.get();
  OpenFile* const file = open_files_.make(inode.share(), std::move(fd), direct_budget_);
  const auto lock = inodes_.lock(*inode);
  const auto stx = statx_fd(file != nullptr ? lower_fd : inode.fd());
  if (stx) {
    const FileStat now = FileStat::from(*stx);
    account_observed(*inode, now, truncated);
    const bool is_orphan = now.nlink == 0 && !inode->record.place && !inode->record.link;
    if (file != nullptr && is_orphan) accounts_.orphan_opened(inode->record, now);
  }
  if (file == nullptr) return failure(ENFILE);
  ++inode->open_handles;
  if (truncated) file->written.store(true, std::memory_order_relaxed);
  // The kernel drops its pages of the file now unless told that they are right.
  const bool keep_cache = inode->pages_current && stx.has_value();
  inode->pages_current = stx.has_value();
  return Opened{.file = file, .keep_cache = keep_cache};
}

Result<Filesystem::Created> Filesystem::create(const Caller& caller, NodeId parent_id,
                                               const char* name, mode_t mode, int flags) {
  TALLY_HOT_PATH("create");
  const auto parent = inodes_.pin(parent_id);
  if (!parent) return std::unexpected(parent.error());
  if (const Status became = credentials_.become_creator(caller); !became)
    return std::unexpected(became.error());
  // Exclusively: that tells that there is one file more.
  const NameLocks::Change change(names_, **parent);
  const int lower = lower_flags(flags) & ~O_TRUNC;
  auto fd = inodes_.open_descriptor([&] {
    constexpr int create_flags = O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    return ::openat(parent->fd(), name, lower | create_flags, mode);
  });
  // The kernel believed the name to be free and somebody took it behind our back. After ESTALE it
  // looks it up anew, and checks whether the caller may open what is there; we have rights of our
  // own and must not.
  if (!fd && fd.error().value == EEXIST && !(flags & O_EXCL)) return failure(ESTALE);
  if (!fd) return std::unexpected(fd.error());
  stop_appending(fd->get(), lower);
  return open_created(*parent, name, *std::move(fd));
}

/// The entry and the handle of a file that was made and opened as `fd`. Its name is not looked up
/// again: it may lead to something else by now.
Result<Filesystem::Created> Filesystem::open_created(const PinnedInode& parent, const char* name,
                                                     CountedFd fd) {
  auto path_fd = reopen(fd.get(), O_PATH);
  if (!path_fd) {
    suspect(*parent);
    return std::unexpected(path_fd.error());
  }
  const auto created = adopt_created(parent, name, *std::move(path_fd));
  if (!created) return std::unexpected(created.error());
  const auto opened = enter_open(created->inode, std::move(fd), false);
  if (!opened) return std::unexpected(opened.error());
  return Created{.entry = entry(*created), .opened = *opened};
}

Result<Filesystem::Created> Filesystem::tmpfile(const Caller& caller, NodeId parent_id, mode_t mode,
                                                int flags) {
  TALLY_HOT_PATH("tmpfile");
  const auto parent = inodes_.pin(parent_id);
  if (!parent) return std::unexpected(parent.error());
  if (const Status became = credentials_.become_creator(caller); !became)
    return std::unexpected(became.error());
  // O_EXCL keeps its meaning here: the file can't be linked.
  const int lower = (lower_flags(flags) & ~O_TRUNC) | (flags & O_EXCL);
  auto fd = inodes_.open_descriptor(
      [&] { return ::openat(parent->fd(), ".", lower | O_TMPFILE | O_CLOEXEC, mode); });
  if (!fd) return std::unexpected(fd.error());
  stop_appending(fd->get(), lower & ~O_TMPFILE);
  auto path_fd = reopen(fd->get(), O_PATH);
  if (!path_fd) return std::unexpected(path_fd.error());
  const auto stx = statx_fd(path_fd->get());
  if (!stx) return std::unexpected(stx.error());
  auto inode = inodes_.find_or_create(*std::move(path_fd), FileStat::from(*stx), nullptr, nullptr);
  if (!inode) return std::unexpected(inode.error());
  (*inode)->accounted = true;
  const auto opened = enter_open(*inode, *std::move(fd), false);
  if (!opened) return std::unexpected(opened.error());
  return Created{.entry = entry({.inode = *std::move(inode), .stx = *stx}), .opened = *opened};
}

void Filesystem::release(OpenFile* file) {
  TALLY_HOT_PATH("release");
  const InodeRef inode = std::move(file->inode);
  const bool was_written = file->written.load(std::memory_order_relaxed);
  // Closed before the last look: that is when ext4 and XFS give preallocated blocks back.
  static_cast<void>(open_files_.destroy(file));
  const auto pinned = was_written ? inodes_.pin(inode) : Result<PinnedInode>(failure(ENOENT));
  bool to_settle = false;
  {
    const auto lock = inodes_.lock(*inode);
    const auto now = pinned ? stat_fd(pinned->fd()) : Result<FileStat>(failure(ENOENT));
    if (now) {
      account_observed(*inode, *now, false);
      to_settle = now->nlink != 0;
    }
    if (--inode->open_handles == 0) accounts_.last_handle_closed(inode->record);
  }
  // A settler that can't keep up slows down who writes; close() has returned long ago.
  if (to_settle && !settle_later(*inode, true))
    static_cast<void>(look_again(inode, Settling::written_back));
}

}  // namespace tally::fs
