#include "core/accounts.hpp"

#include <cassert>

namespace tally {

namespace {

bool counted_in_one_directory(const FileRecord& file) { return bool{file.dir}; }

Delta counted(const FileRecord& file) {
  return {.bytes = file.size, .disk = file.blocks, .unique = file.blocks, .files = 1};
}

/// What is counted of `file`, as HardLinks::adopt wants it.
FileStat counted_stat(const FileRecord& file) {
  return {.key = file.key, .nlink = 1, .size = file.size, .blocks = file.blocks};
}

void remember(FileRecord& file, const FileStat& now) {
  file.size = now.size;
  file.blocks = now.blocks;
  file.ctime_ns = now.ctime_ns;
}

}  // namespace

Accounts::Accounts(uint32_t dirs_max, uint32_t inodes_max, StaleList* stale)
    : tree_(dirs_max, stale), links_(tree_, inodes_max) {}

void Accounts::file_found(FileRecord& file, DirIndex dir, const FileStat& now) {
  file = {.key = now.key, .dir = {}, .link = links_.find(now.key)};
  // Counts of a hard-linked inode are kept, so that what happened to it meanwhile shows; of others
  // what is found is taken to be what was counted.
  remember(file, file.link ? links_.counted(file.link) : now);
  if (!file.link) file.dir = dir;
}

void Accounts::name_added(FileRecord& file, DirIndex dir, const FileStat& now) {
  leave_orphans(file);
  if (counted_in_one_directory(file)) {
    if (const auto link = links_.adopt(file.dir, counted_stat(file))) {
      file.link = *link;
      file.dir = {};
    }
  }
  if (file.link) {
    links_.add_name(file.link, dir, now);
  } else if (counted_in_one_directory(file)) {
    // No room to follow one more hard-linked inode: it is counted once, where it was. There it is
    // not unique any more.
    tree_.mark_suspect(file.dir);
    tree_.mark_suspect(dir);
    tree_.apply(dir, {}, now.ctime_ns, +1);
  } else {
    forget_former_inode(now);
    file.key = now.key;
    file.dir = dir;
    remember(file, now);
    tree_.apply(dir, counted(file), now.ctime_ns, +1);
    // It has names that are not counted with this one.
    if (now.nlink > 1) tree_.mark_suspect(dir);
  }
  remember(file, now);
}

/// What is still counted under the number of an inode that is new: its names went behind our back.
void Accounts::forget_former_inode(const FileStat& now) {
  const LinkIndex former = links_.find(now.key);
  if (!former) return;
  links_.forget_names_of(former, {.key = now.key, .ctime_ns = now.ctime_ns});
  static_cast<void>(links_.drop(former));
}

void Accounts::name_removed(FileRecord& file, DirIndex dir, const FileStat& now, bool still_open) {
  if (file.link) {
    const uint32_t left = links_.remove_name(file.link, dir, now);
    if (left == 0 || (left == 1 && now.nlink == 1)) {
      file.dir = links_.drop(file.link);
      file.link = {};
    }
  } else {
    if (file.dir != dir) tree_.mark_suspect(dir);
    tree_.apply(dir, file.dir == dir ? -counted(file) : Delta{}, now.ctime_ns, -1);
    if (file.dir == dir) file.dir = {};
  }
  if (now.nlink == 0) forget_lost_names(file, now);
  remember(file, now);
  if (now.nlink == 0 && still_open) orphan_opened(file, now);
}

/// The inode has no name any more: what is still counted of it went behind our back.
void Accounts::forget_lost_names(FileRecord& file, const FileStat& now) {
  if (file.link) {
    links_.forget_names_of(file.link, now);
    file.dir = links_.drop(file.link);
    file.link = {};
  }
  if (!file.dir) return;
  tree_.mark_suspect(file.dir);
  tree_.apply(file.dir, -counted(file), now.ctime_ns, -1);
  file.dir = {};
}

void Accounts::name_moved(FileRecord& file, DirIndex from, DirIndex to, const FileStat& now) {
  if (file.link) {
    links_.move_name(file.link, from, to, now);
    remember(file, now);
  } else {
    const bool is_counted_here = file.dir == from;
    tree_.transfer(from, to, is_counted_here ? counted(file) : Delta{}, now.ctime_ns);
    if (is_counted_here) {
      file.dir = to;
      // It can't be followed, and is not unique where it has come to either.
      if (now.nlink > 1) tree_.mark_suspect(to);
    } else {
      // Another name is what is counted, or none.
      tree_.mark_suspect(from);
      tree_.mark_suspect(to);
    }
    file_observed(file, now, false);
  }
}

void Accounts::file_observed(FileRecord& file, const FileStat& now, bool mutated) {
  const bool differs =
      file.size != now.size || file.blocks != now.blocks || file.ctime_ns != now.ctime_ns;
  if (!differs && !mutated) return;
  if (file.link) {
    links_.reconcile(file.link, now);
  } else if (file.orphan) {
    orphan_bytes_ += (now.size - file.size).count;
  } else if (counted_in_one_directory(file)) {
    const Blocks grown = now.blocks - file.blocks;
    tree_.apply(file.dir, {.bytes = now.size - file.size, .disk = grown, .unique = grown},
                now.ctime_ns);
  }
  remember(file, now);
}

void Accounts::orphan_opened(FileRecord& file, const FileStat& now) {
  assert(!file.dir && !file.link);
  if (file.orphan) return;
  file.key = now.key;
  remember(file, now);
  file.orphan = true;
  orphan_bytes_ += file.size.count;
}

void Accounts::last_handle_closed(FileRecord& file) { leave_orphans(file); }

void Accounts::leave_orphans(FileRecord& file) {
  if (!file.orphan) return;
  file.orphan = false;
  orphan_bytes_ -= file.size.count;
}

Result<DirIndex> Accounts::dir_created(DirIndex parent, const FileStat& now) {
  const auto dir = tree_.insert(parent, now);
  if (dir) tree_.apply(parent, tree_.totals(*dir), now.ctime_ns);
  return dir;
}

void Accounts::dir_removed(DirIndex dir) { links_.remove_directory(dir); }

void Accounts::dir_moved(DirIndex dir, DirIndex to, const FileStat& now) {
  links_.move_directory(dir, to, now.ctime_ns);
  dir_observed(dir, now, false);
}

void Accounts::dir_observed(DirIndex dir, const FileStat& now, bool mutated) {
  tree_.reconcile_own(dir, now, mutated);
}

}  // namespace tally
