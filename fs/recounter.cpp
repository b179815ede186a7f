#include "fs/recounter.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>

#include "core/hot_path_guard.hpp"

namespace tally::fs {

namespace {

// A directory that is come back to is read from there in parts that grow: a part is lost with each
// descent from it.
constexpr std::size_t part_least_bytes = 2048;

constexpr std::size_t missing_max = 1 << 16;

// While the totals of a directory are verified everything waits: for this many names some 10 ms.
constexpr uint32_t verified_names_max = 50'000;

/// Whether an error means that something went or changed since it was listed, behind our back, or
/// that it is not ours to see: what is left is what counts.
bool is_no_loss(Errno error) {
  switch (error.value) {
    case ENOENT:
    case ESTALE:
    case EAGAIN:  // something else goes by that name now
    case ENOTDIR:
    case ELOOP:
    case EACCES:
    case EPERM:
    case EXDEV:  // left out
      return true;
    default:
      return false;
  }
}

/// How often this thread has had to wait for something. Unlike the time that a call takes it does
/// not depend on what else the machine does.
long waits_of_this_thread() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

}  // namespace

Recounter::Recounter(Filesystem& filesystem)
    : filesystem_(filesystem), levels_(depth_max), missing_(missing_max) {}

// --- Walking ---------------------------------------------------------------------------------

Recounter::Outcome Recounter::walk(Scope scope, const Pace& pace) {
  TALLY_HOT_PATH("recount");
  scope_ = scope;
  pace_ = &pace;
  outcome_ = {};
  const auto root = filesystem_.inodes_.pin(FUSE_ROOT_ID);
  if (!root) return outcome_;
  static_cast<void>(filesystem_.observe(**root, root->fd(), false));
  visit(*root, tree().is_suspect(tree().root()));
  bool goes_on = rest();
  while (depth_ != 0) {
    if (goes_on && descend()) continue;
    goes_on = goes_on && rest();
    leave(goes_on);
  }
  if (goes_on) remove_missing();
  missing_count_ = 0;
  outcome_.finished = goes_on;
  return outcome_;
}

bool Recounter::rest() {
  TALLY_HOT_PATH_PAUSE("may log and sleep");
  return (*pace_)(std::exchange(operations_, 0));
}

/// Recounts a directory if that is wanted, and goes into it if there is something to visit below.
/// Returns whether it has. `was_suspect`: before it was looked up, which may find it changed.
bool Recounter::visit(const PinnedInode& directory, bool was_suspect) {
  const DirIndex dir = directory->dir_now();
  if (!dir) return false;
  if (is_to_recount(dir)) recount(directory, was_suspect);
  const bool is_way_down = scope_ == Scope::everything || tree().has_suspects(dir);
  if (is_way_down && tree().counters(dir).subdirs > 0 && depth_ < depth_max) {
    enter(directory, dir);
    return true;
  }
  complete(dir);
  return false;
}

bool Recounter::is_to_recount(DirIndex dir) {
  if (scope_ == Scope::everything) return true;
  return tree().is_suspect(dir) && !tree().is_being_recounted(dir);
}

void Recounter::enter(const PinnedInode& directory, DirIndex dir) {
  const bool is_scan = scope_ == Scope::unscanned;
  // Where others were let in before everything is looked at once: each way down is walked once.
  const bool is_first = depth_ == 0 || levels_[depth_ - 1].pass == Pass::unclaimed;
  filesystem_.inodes_.add_lookup(*directory);
  levels_[depth_] = {.directory = directory->id(),
                     .position = 0,
                     .pass = is_scan && is_first ? Pass::unclaimed : Pass::all,
                     .claimed = is_scan && tree().claim(dir)};
  ++depth_;
}

/// All below the directory has been visited.
void Recounter::complete(DirIndex dir) {
  tree().settle_suspects_below(dir);
  // While the tree is scanned every directory is passed here, and none could have gone wrong yet.
  if (scope_ == Scope::unscanned) return;
  if (!filesystem_.accounts_.links().verify(dir, verified_names_max)) ++outcome_.differing;
}

/// Goes on with the deepest directory on the way. False if all in it has been visited, or the walk
/// is to end.
bool Recounter::descend() {
  Level& level = levels_[depth_ - 1];
  const auto directory = filesystem_.inodes_.pin(level.directory);
  if (!directory) return false;
  const auto fd = filesystem_.reopen(directory->fd(), O_RDONLY | O_DIRECTORY);
  if (!fd || ::lseek(fd->get(), level.position, SEEK_SET) < 0) return false;
  std::size_t part_bytes = part_least_bytes;
  while (walked_.fill(fd->get(), part_bytes).value_or(false)) {
    part_bytes *= 2;
    ++operations_;
    while (const dirent64* entry = walked_.next_entry()) {
      level.position = entry->d_off;
      const DirIndex child = wanted(fd->get(), *entry, (*directory)->key().dev, level.pass);
      if (!child) continue;
      const bool was_suspect = tree().is_suspect(child);
      const auto found = filesystem_.find(*directory, entry->d_name);
      operations_ += 2;
      if (!found || !is_child(found->inode, *directory)) continue;
      if (visit(found->inode, was_suspect)) return true;
      if (!rest()) return false;
    }
  }
  return begin_next_pass(*directory, level) && descend();
}

/// False if nothing is left, or nothing that another pass would find.
bool Recounter::begin_next_pass(const PinnedInode& directory, Level& level) {
  if (level.pass == Pass::by_stat || scope_ == Scope::everything) return false;
  const DirIndex dir = directory->dir_now();
  if (!dir) return false;
  tree().settle_suspects_below(dir);
  if (!tree().has_suspects_below(dir)) return false;
  level.position = 0;
  if (level.pass == Pass::unclaimed) {
    level.pass = Pass::shared;
    return true;
  }
  // Where others are at work something is left for as long as they are; where nobody is, it was
  // passed over: a subvolume of btrfs is listed with a number that may be another inode's.
  level.pass = Pass::by_stat;
  return tree().has_unclaimed_suspects_below(dir);
}

/// The directory that an entry is, if the walk is to visit it in this pass. `by_stat`: only those
/// that the number they are listed with does not lead to; by that number the others were visited.
DirIndex Recounter::wanted(int fd, const dirent64& entry, uint32_t dev, Pass pass) {
  const bool by_stat = pass == Pass::by_stat;
  if (entry.d_type != DT_DIR && entry.d_type != DT_UNKNOWN) return {};
  const FileKey listed = {.ino = entry.d_ino, .dev = dev};
  DirIndex dir = tree().find(listed);
  if (!dir || by_stat) {
    // Something is mounted on it, or the number that the directory says is not that of the inode.
    ++operations_;
    if (!filesystem_.check_not_own(fd, entry.d_name)) return {};
    const auto stat = stat_at(fd, entry.d_name);
    if (!stat || !stat->is_directory() || (by_stat && stat->key == listed)) return {};
    dir = tree().find(stat->key);
  }
  if (!dir) return {};
  const bool is_shared = tree().is_claimed(dir) || tree().is_being_recounted(dir);
  if (pass == (is_shared ? Pass::unclaimed : Pass::shared)) return {};
  return scope_ == Scope::everything || tree().has_suspects(dir) ? dir : DirIndex();
}

/// Whether it is counted here: what is mounted in several places is visited in one of them.
bool Recounter::is_child(const PinnedInode& inode, const PinnedInode& directory) const {
  if (!inode->is_directory()) return false;
  const DirIndex dir = inode->dir_now();
  return dir && tree().parent(dir) == directory->dir_now();
}

/// Goes back from the deepest directory on the way, which has been visited or is given up.
void Recounter::leave(bool visited) {
  const Level& level = levels_[--depth_];
  const auto inode = filesystem_.inodes_.get(level.directory);
  const DirIndex dir = inode ? (*inode)->dir_now() : DirIndex();
  if (dir && level.claimed) tree().end_claim(dir);
  if (dir && visited) complete(dir);
  filesystem_.inodes_.forget(level.directory, 1);
}

// --- Recounting ------------------------------------------------------------------------------

/// What can't be seen now stays as it was, and makes the directory suspect: it will be tried again.
void Recounter::recount(const PinnedInode& directory, bool was_suspect) {
  const auto fd = filesystem_.reopen(directory.fd(), O_RDONLY | O_DIRECTORY);
  if (!fd && !is_no_loss(fd.error())) {
    tree().mark_suspect(directory->dir_now());
    ++outcome_.directories;
    ++outcome_.failed;
    return;
  }
  if (fd) warm_up(fd->get());

  const WriterLock unchanging(filesystem_.names_.of(*directory));
  const DirIndex dir = directory->dir_now();
  // Somebody else may have recounted it until now.
  if (!dir || !is_to_recount(dir)) return;
  Recount recount(filesystem_.accounts_, dir);
  if (!recount.begin()) return;
  // Of a directory that is not ours to read nothing is counted.
  const bool complete = !fd || meet_all(recount, directory, fd->get());
  if (!recount.finish(complete) && !was_suspect) ++outcome_.differing;
  if (!complete) ++outcome_.failed;
  ++outcome_.directories;
  directories_.fetch_add(1, std::memory_order_relaxed);
  if (complete) note_missing(dir);
}

/// Has the lower filesystem read what it has not in its caches, while nobody is held up by it. Of
/// each buffer of entries a sample says whether that is worthwhile: whether it had to be waited
/// for. For very few it is not.
void Recounter::warm_up(int fd) {
  constexpr int few = 8;
  constexpr int sample_end = few + 2;
  while (counted_.fill(fd).value_or(false)) {
    ++operations_;
    long waits = 0;
    int seen = 0;
    while (const dirent64* entry = counted_.next_entry()) {
      if (entry->d_type == DT_DIR) continue;  // something may be mounted there
      if (seen == few) waits = waits_of_this_thread();
      if (seen == sample_end && waits_of_this_thread() == waits) break;
      if (seen++ >= few) static_cast<void>(stat_at(fd, entry->d_name));
    }
  }
}

/// False if not all entries could be seen.
bool Recounter::meet_all(Recount& recount, const PinnedInode& directory, int fd) {
  if (::lseek(fd, 0, SEEK_SET) < 0) return false;
  bool complete = true;
  while (true) {
    const auto filled = counted_.fill(fd);
    ++operations_;
    if (!filled) return complete && is_no_loss(filled.error());
    if (!*filled) return complete;
    while (const dirent64* entry = counted_.next_entry()) {
      const Status met = meet(recount, directory, fd, *entry);
      if (!met && !is_no_loss(met.error())) complete = false;
      ++operations_;
      ++outcome_.entries;
    }
  }
}

Status Recounter::meet(Recount& recount, const PinnedInode& directory, int fd,
                       const dirent64& entry) {
  const char* const name = entry.d_name;
  // Asked before, too: with its last reference a record may go, after a change that we don't see.
  const bool was_known =
      filesystem_.inodes_.knows({.ino = entry.d_ino, .dev = directory->key().dev});
  if (entry.d_type == DT_DIR || entry.d_type == DT_UNKNOWN)
    if (const Status served = filesystem_.check_not_own(fd, name); !served) return served;
  const auto found = stat_entry_at(fd, name);
  if (!found) return std::unexpected(found.error());
  const FileStat& now = found->stat;
  if (const Status served = filesystem_.check_served(now.key, fd, name); !served) return served;
  const bool is_known = was_known || filesystem_.inodes_.knows(now.key);
  if (now.is_directory()) {
    if (recount.meet_directory(now.key)) {
      suspect_if_another(now, fd, name);
      return {};
    }
    return is_known || tree().find(now.key) || found->is_mount_root
               ? meet_known(recount, directory, fd, name, now.key)
               : meet_new_directory(recount, directory->dir_now(), now);
  }
  if (is_known || now.nlink != 1 || filesystem_.accounts_.links().find(now.key))
    return meet_known(recount, directory, fd, name, now.key);
  recount.meet(now);
  return {};
}

/// The child that was met may be another directory than the one that is counted, with its number,
/// which was removed and made anew behind our back. (An audit comes to it anyway.) Nobody changes a
/// directory through us that the table does not know.
void Recounter::suspect_if_another(const FileStat& met, int fd, const char* name) {
  if (scope_ == Scope::everything) return;
  const DirIndex dir = tree().find(met.key);
  if (!dir || tree().was_observed_at(dir, met.ctime_ns)) return;
  if (!filesystem_.inodes_.find(met.key, fd, name)) tree().mark_suspect(dir);
}

/// An entry whose inode has a record, or needs one: it is looked at again under the inode's lock.
Status Recounter::meet_known(Recount& recount, const PinnedInode& directory, int fd,
                             const char* name, const FileKey& key) {
  if (const InodeRef known = filesystem_.inodes_.find(key, fd, name))
    return meet_inode(recount, *directory, *known, fd, name);
  auto path_fd = filesystem_.inodes_.open_descriptor(
      [&] { return ::openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC); });
  if (!path_fd) return std::unexpected(path_fd.error());
  const auto seen = stat_fd(path_fd->get());
  if (!seen) return std::unexpected(seen.error());
  const auto inode =
      filesystem_.inodes_.find_or_create(*std::move(path_fd), *seen, &*directory, name);
  if (!inode) return std::unexpected(inode.error());
  operations_ += 3;

  return meet_inode(recount, *directory, **inode, fd, name);
}

Status Recounter::meet_inode(Recount& recount, const Inode& directory, Inode& inode, int fd,
                             const char* name) {
  const auto lock = filesystem_.inodes_.lock(directory, inode);
  const auto now = stat_entry_at(fd, name);
  if (!now) return std::unexpected(now.error());
  if (now->stat.key != inode.key()) return failure(EAGAIN);
  if (inode.is_directory()) return meet_directory(recount, directory, inode, *now);

  FileRecord& record = inode.record;
  if (!inode.accounted) {
    filesystem_.accounts_.link_found(record, now->stat.key);
    if (!record.link && now->stat.nlink == 1) {
      // Whoever looks it up at this moment takes it to be counted as it is found, and so it is.
      recount.meet(now->stat);
      return {};
    }
    inode.accounted = true;
  }
  // What is found may be more recent than what is counted, because a request has changed it and is
  // about to account it, or because it has yet to be settled. Else it was changed behind our back.
  const bool is_as_counted = record.size == now->stat.size && record.blocks == now->stat.blocks;
  if (!is_as_counted && !inode.settle_pending && !filesystem_.inodes_.is_in_use(inode))
    recount.differs();
  if (record.size != now->stat.size || record.ctime_ns != now->stat.ctime_ns)
    inode.pages_current = false;
  recount.meet(record, now->stat);
  return {};
}

/// A directory that nobody has met. Who comes across it now waits for the end of the recount.
Status Recounter::meet_new_directory(Recount& recount, DirIndex parent, const FileStat& now) {
  const auto found = filesystem_.accounts_.dir_found(parent, now, false);
  if (!found) return std::unexpected(found.error());
  tree().release(*found);
  if (recount.meet_directory(now.key)) recount.differs();
  return {};
}

/// A directory that is not counted in the one that is recounted.
Status Recounter::meet_directory(Recount& recount, const Inode& directory, Inode& inode,
                                 const EntryStat& now) {
  filesystem_.account_directory_found(inode, directory, now);
  if (!inode.dir) return failure(ENOSPC);
  // Not if it is mounted elsewhere, too, and counted there.
  if (recount.meet_directory(now.stat.key)) recount.differs();
  return {};
}

/// A child that is not where it was may have moved to where the walk has not been yet. It stays
/// counted until the end of the walk, and the directory suspect. The walk of everything may last
/// for hours: there the repairs decide; and so do they, in another walk, if there are very many.
void Recounter::note_missing(DirIndex dir) {
  const std::size_t room = scope_ == Scope::everything ? 0 : missing_max - missing_count_;
  std::size_t count = 0;
  tree().for_each_unseen_child(dir, [&](DirIndex child) {
    if (count++ < room) missing_[missing_count_++] = {.key = tree().key_of(child), .dir = child};
  });
  if (count != 0) tree().mark_suspect(dir);
}

void Recounter::remove_missing() {
  for (const Missing& missing : std::span(&missing_[0], missing_count_))
    filesystem_.accounts_.dir_missing(missing.dir, missing.key);
}

}  // namespace tally::fs
