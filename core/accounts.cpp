#include "core/accounts.hpp"

#include <cassert>
#include <cerrno>

namespace tally {

namespace {

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

bool is_as_counted(const FileRecord& file, const FileStat& now) {
  return file.size == now.size && file.blocks == now.blocks && file.ctime_ns == now.ctime_ns;
}

}  // namespace

Accounts::Accounts(uint32_t dirs_max, uint32_t inodes_max, StaleList* stale)
    : tree_(dirs_max, stale), links_(tree_, inodes_max) {}

// --- Files -----------------------------------------------------------------------------------

void Accounts::file_found(FileRecord& file, DirIndex dir, const FileStat& now) {
  // Counts of a hard-linked inode are kept, so that what happened to it meanwhile shows; of others
  // what is found is taken to be what was counted.
  link_found(file, now.key);
  if (file.link) return;
  file.place = tree_.place_in(dir);
  remember(file, now);
  // All that the scan has met with several names are known as such: this one was made by others.
  if (now.nlink > 1) tree_.mark_suspect(dir);
}

void Accounts::link_found(FileRecord& file, const FileKey& key) {
  file = {.key = key, .place = {}, .link = links_.find(key)};
  if (file.link) remember(file, links_.counted(file.link));
}

/// A change of a file that is counted at its place, if it still is.
void Accounts::apply(FileRecord& file, const Delta& delta, TimeNs ctime_ns, int64_t entries) {
  if (!tree_.apply_file(file.place, delta, ctime_ns, entries)) file.place = {};
}

/// The file, which is counted nowhere, is counted in `dir`.
void Accounts::count_in(FileRecord& file, DirIndex dir, const FileStat& now, int64_t entries) {
  file.key = now.key;
  file.place = tree_.place_in(dir);
  remember(file, now);
  apply(file, counted(file), now.ctime_ns, entries);
}

void Accounts::name_added(FileRecord& file, DirIndex dir, const FileStat& now) {
  leave_orphans(file);
  if (file.place) {
    if (const auto link = links_.adopt(file.place, counted_stat(file))) {
      file.link = *link;
      file.place = {};
    } else if (link.error().value == ESTALE) {
      file.place = {};
    }
  }
  if (file.link) {
    links_.add_name(file.link, dir, now);
  } else if (file.place) {
    // No room to follow one more hard-linked inode: it is counted once, where it was. There it is
    // not unique any more.
    tree_.mark_suspect(file.place.dir);
    suspect_change(dir, now);
  } else {
    forget_former_inode(now);
    count_in(file, dir, now, +1);
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
      file.place = links_.drop(file.link);
      file.link = {};
    }
  } else {
    const bool is_counted_here = dir && file.place.dir == dir;
    if (is_counted_here) apply(file, -counted(file), now.ctime_ns, -1);
    // Else it is counted by another name, or not at all.
    if (dir && (!is_counted_here || !file.place)) suspect_change(dir, now);
    if (is_counted_here) file.place = {};
  }
  if (now.nlink == 0) forget_lost_names(file, now);
  remember(file, now);
  if (now.nlink == 0 && still_open) orphan_opened(file, now);
}

/// The inode has no name any more: what is still counted of it went behind our back.
void Accounts::forget_lost_names(FileRecord& file, const FileStat& now) {
  if (file.link) {
    links_.forget_names_of(file.link, now);
    file.place = links_.drop(file.link);
    file.link = {};
  }
  if (!file.place) return;
  tree_.mark_suspect(file.place.dir);
  apply(file, -counted(file), now.ctime_ns, -1);
  file.place = {};
}

void Accounts::name_moved(FileRecord& file, DirIndex from, DirIndex to, const FileStat& now) {
  if (file.link) {
    links_.move_name(file.link, from, to, now);
    remember(file, now);
    return;
  }
  const FilePlace place = tree_.place_in(to);
  if (file.place.dir == from && tree_.transfer(file.place, place, counted(file), now.ctime_ns)) {
    file.place = place;
    // It can't be followed, and is not unique where it has come to either.
    if (now.nlink > 1) tree_.mark_suspect(to);
  } else {
    // Another name is what is counted, or none.
    suspect_change(from, now);
    suspect_change(to, now);
  }
  file_observed(file, now, false);
}

/// A name in `dir` came or went that can't be accounted. Its entries stay as they are, in agreement
/// with the files that are counted in it, for the recount to find the difference.
void Accounts::suspect_change(DirIndex dir, const FileStat& now) {
  tree_.mark_suspect(dir);
  tree_.apply(dir, {}, now.ctime_ns);
}

void Accounts::file_observed(FileRecord& file, const FileStat& now, bool mutated) {
  if (is_as_counted(file, now) && !mutated) return;
  if (file.link) {
    links_.reconcile(file.link, now);
  } else if (file.orphan) {
    orphan_bytes_ += (now.size - file.size).count;
  } else if (file.place) {
    const Blocks grown = now.blocks - file.blocks;
    apply(file, {.bytes = now.size - file.size, .disk = grown, .unique = grown}, now.ctime_ns);
  }
  remember(file, now);
}

bool Accounts::name_met(FileRecord& file, DirIndex dir, const FileStat& now) {
  leave_orphans(file);
  if (!file.link) forget_former_inode(now);
  // Counted by another name, which it may still have.
  if (file.place && file.place.dir != dir && now.nlink > 1) follow(file, dir);
  bool was_counted = file.link ? links_.meet_name(file.link, dir) : meet_file(file, dir, now);
  if (!file.link && now.nlink > 1) {
    // Its other names are not known yet, or are made behind our back.
    was_counted = false;
    follow(file, dir);
    if (!file.link) return false;
    file_observed(file, now, true);
  } else if (file.link && !was_counted) {
    links_.add_name(file.link, dir, now);
    remember(file, now);
  }
  file_observed(file, now, false);
  return was_counted;
}

/// A recount of `dir` has met a file that has no link. Returns whether it was counted there.
bool Accounts::meet_file(FileRecord& file, DirIndex dir, const FileStat& now) {
  if (file.place.dir == dir) {
    file.place = tree_.meet_file(file.place, counted(file));
    if (file.place) return true;
  } else if (file.place) {
    const FilePlace place = tree_.place_in(dir);
    const bool moved = tree_.transfer(file.place, place, counted(file), now.ctime_ns);
    file.place = moved ? place : FilePlace();
  }
  if (!file.place) count_in(file, dir, now, +1);
  return false;
}

/// The file, one of whose names is in `dir`, has several.
void Accounts::follow(FileRecord& file, DirIndex dir) {
  const auto link = links_.adopt(file.place, counted_stat(file));
  if (link) file.link = *link;
  if (link || link.error().value == ESTALE) {
    file.place = {};
  } else {
    tree_.mark_suspect(dir);
  }
}

void Accounts::orphan_opened(FileRecord& file, const FileStat& now) {
  assert(!file.place && !file.link);
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

// --- Directories -----------------------------------------------------------------------------

Result<DirIndex> Accounts::dir_created(DirIndex parent, const FileStat& now) {
  return tree_.insert(parent, now);
}

Result<DirIndex> Accounts::dir_found(DirIndex parent, const FileStat& now, bool is_mount_root) {
  if (const DirIndex dir = tree_.hold(now.key)) {
    if (is_mount_root) return dir;
    if (tree_.parent(dir) == parent) {
      // Made anew behind our back it may have the number of the one that was removed.
      if (!tree_.was_observed_at(dir, now.ctime_ns)) tree_.mark_suspect(dir);
      return dir;
    }
    dir_moved(dir, parent, now);
    // What else happened to it is not known; nor whether it is the one that had its number.
    tree_.mark_suspect(dir);
    return dir;
  }
  // Not the room that a mkdir has been promised.
  const DirectoryRoom room = room_for_directory();
  if (!room) return failure(ENOSPC);
  return tree_.insert(parent, now, DirTree::Content::unknown);
}

void Accounts::dir_removed(DirIndex dir) { links_.remove_directory(dir); }

void Accounts::dir_missing(DirIndex dir, const FileKey& key) { links_.remove_unseen(dir, key); }

void Accounts::dir_moved(DirIndex dir, DirIndex to, const FileStat& now) {
  links_.move_directory(dir, to, now.ctime_ns);
  dir_observed(dir, now, false);
}

void Accounts::dir_observed(DirIndex dir, const FileStat& now, bool mutated) {
  tree_.reconcile_own(dir, now, mutated);
}

}  // namespace tally
