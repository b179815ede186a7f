// Rename. The kernel holds the locks of both parents and of what is renamed over, and renames
// between directories one at a time.

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <utility>

#include "core/hot_path_guard.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

Status Filesystem::rename(const Caller& caller, NodeId from_id, const char* name, NodeId to_id,
                          const char* new_name, unsigned flags) {
  TALLY_HOT_PATH("rename");
  const auto from = inodes_.pin(from_id);
  if (!from) return std::unexpected(from.error());
  const auto to = inodes_.pin(to_id);
  if (!to) return std::unexpected(to.error());
  const auto moved = find(*from, name);
  if (!moved) return std::unexpected(moved.error());
  const auto target = find(*to, new_name);
  if (!target && target.error().value != ENOENT) return std::unexpected(target.error());

  // The device node that stands in for what is moved belongs to the caller.
  const Status became =
      flags & RENAME_WHITEOUT ? credentials_.become_creator(caller) : credentials_.become_daemon();
  if (!became) return became;
  const NameLocks::Change change(names_, **from, **to);
  if (::renameat2(from->fd(), name, to->fd(), new_name, flags) != 0) return last_error();
  const PinnedInode* const replaced = target ? &target->inode : nullptr;
  // Two names of one inode: rename(2) does nothing, and both stay.
  if (replaced != nullptr && (*replaced)->id() == moved->inode->id()) return {};
  account_rename({.from = *from,
                  .to = *to,
                  .name = name,
                  .new_name = new_name,
                  .moved = moved->inode,
                  .target = replaced,
                  .is_exchange = (flags & RENAME_EXCHANGE) != 0});
  // If it can't be seen, that is noted.
  if (flags & RENAME_WHITEOUT) static_cast<void>(adopt_created(*from, name));
  return {};
}

void Filesystem::account_rename(const Renamed& done) {
  Inode& from = *done.from;
  Inode& to = *done.to;
  Inode* const target = done.target != nullptr ? &**done.target : nullptr;
  uint32_t moved_nlink = 0;
  uint32_t target_nlink = 0;
  bool target_is_gone = false;
  {
    const auto lock = inodes_.lock(from, to, *done.moved, target);
    if (target != nullptr && !done.is_exchange) target_is_gone = account_removed(*done.target, to);
    moved_nlink = account_moved(done.moved, from, to);
    if (target != nullptr && done.is_exchange) target_nlink = account_moved(*done.target, to, from);
    if (target == nullptr && done.is_exchange) {
      // Exchanged with something that was not there yet when it was looked up.
      suspect(from);
      suspect(to);
    }
    account_parent(done.from);
    account_parent(done.to);
  }
  inodes_.named(done.moved, to, done.new_name, moved_nlink);
  if (target == nullptr) return;
  if (done.is_exchange) {
    inodes_.named(*done.target, from, done.name, target_nlink);
  } else if (target_is_gone) {
    retire(*done.target);
  }
}

}  // namespace tally::fs
