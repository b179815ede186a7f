#include "core/scan_worker.hpp"

#include <algorithm>
#include <array>

#include "core/hot_path_guard.hpp"

namespace tally {

/// What is directly in a directory, as far as it has been read.
struct ScanWorker::Content {
  Delta files;
  int64_t file_names = 0;
  TimeNs newest_ctime_ns = 0;
  ScanChain found;  ///< directories that are not queued yet
};

namespace {

// 65,536 levels of the longest names. Touched only as far as paths from the root are long.
constexpr std::size_t path_size_max_bytes = 16 << 20;

/// What an error means that a call on a directory's entry or on the directory itself returned.
ScanErrorKind kind_of(Errno error) {
  switch (error.value) {
    case ENOENT:
    case ESTALE:
      return ScanErrorKind::vanished;
    case ELOOP:  // O_NOFOLLOW
    case ENOTDIR:
      return ScanErrorKind::changed;
    default:
      return ScanErrorKind::unreadable;
  }
}

/// Whether a directory with this error counts less than its owner would find in it. Where somebody
/// has no permission, what he finds is what counts.
bool makes_suspect(ScanErrorKind kind, Errno error) {
  return kind == ScanErrorKind::changed || kind == ScanErrorKind::no_room ||
         (kind == ScanErrorKind::unreadable && error.value != EACCES && error.value != EPERM);
}

}  // namespace

ScanWorker::ScanWorker(ScanContext& scan, unsigned number, unsigned queue_depth)
    : scan_(scan),
      number_(number),
      names_(scan.names),
      path_(path_size_max_bytes),
      opener_(scan, queue_depth, path_room()) {}

void ScanWorker::run() {
  TALLY_HOT_PATH("scan");
  while (const DirIndex dir = next_directory())
    read(dir);
}

// --- Taking ----------------------------------------------------------------------------------

DirIndex ScanWorker::next_directory() {
  std::array<DirIndex, DirectoryOpener::batch_max> room;
  while (true) {
    const auto taken = scan_.schedule.take(number_, std::span(room).first(opener_.batch_size()));
    if (!taken.empty()) {
      const DirIndex dir = scan_.state(taken[0]).is_open() ? taken[0] : open_some(taken);
      if (dir) return dir;
      continue;
    }
    opener_.flush();
    if (!scan_.schedule.wait()) return {};
  }
}

/// Opens a batch, returns one of it to be read now and queues the others. Null if none would open.
DirIndex ScanWorker::open_some(std::span<const DirIndex> dirs) {
  opener_.open(dirs);
  DirIndex first;
  std::array<DirIndex, DirectoryOpener::batch_max> later;
  std::size_t later_count = 0;
  for (const DirIndex dir : dirs) {
    const ScanState& state = scan_.state(dir);
    if (state.is_open() && !first) {
      first = dir;
    } else if (state.is_open() || state.descriptor == ScanState::not_opened) {
      later[later_count++] = dir;
    } else {
      cannot_open(dir, Errno{-state.descriptor});
    }
  }
  if (later_count != 0) scan_.schedule.put_back(number_, std::span(later).first(later_count));
  return first;
}

void ScanWorker::cannot_open(DirIndex dir, Errno error) {
  const ScanErrorKind kind = kind_of(error);
  report(kind, error, dir);
  scan_.state(dir).gone = kind != ScanErrorKind::unreadable;
  complete(dir);
  scan_.schedule.done();
}

// --- Reading ---------------------------------------------------------------------------------

void ScanWorker::read(DirIndex dir) {
  Content content;
  if (const Status status = read_entries(dir, content); !status) {
    const ScanErrorKind kind = kind_of(status.error());
    report(kind, status.error(), dir);
    scan_.state(dir).gone = kind != ScanErrorKind::unreadable;
  }
  queue_found(dir, content, ScanSchedule::Caller::takes_next);
  opener_.finish_reading(dir);
  publish(dir, content);
  complete(dir);
  scan_.schedule.done();
}

Status ScanWorker::read_entries(DirIndex dir, Content& content) {
  const int fd = scan_.state(dir).descriptor;
  for (bool is_first = true;; is_first = false) {
    const auto filled = reader_.fill(fd);
    if (!filled) return std::unexpected(filled.error());
    if (!*filled) return {};
    if (is_first && !is_expected(dir)) return failure(ENOTDIR);
    queue_found(dir, content, ScanSchedule::Caller::reads_on);
    while (const char* name = reader_.next())
      add_entry(dir, name, content);
  }
}

/// Whether what was opened under the directory's name is still what was found under it. Mostly the
/// directory says so itself, which saves a system call.
bool ScanWorker::is_expected(DirIndex dir) const {
  const FileKey expected = scan_.tree.key_of(dir);
  if (reader_.own_ino() == expected.ino) return true;
  const auto stat = stat_fd(scan_.states[dir.value].descriptor);
  return stat && stat->key == expected;
}

void ScanWorker::add_entry(DirIndex dir, const char* name, Content& content) {
  const auto entry = stat_entry_at(scan_.state(dir).descriptor, name);
  if (!entry) {
    report(kind_of(entry.error()), entry.error(), dir, name);
  } else if (scan_.only_device.value_or(entry->stat.key.dev) != entry->stat.key.dev) {
    report(ScanErrorKind::other_filesystem, Errno{EXDEV}, dir, name);
  } else if (entry->stat.is_directory()) {
    add_directory(dir, name, *entry, content);
  } else {
    add_file(dir, name, entry->stat, content);
  }
}

void ScanWorker::add_directory(DirIndex dir, const char* name, const EntryStat& entry,
                               Content& content) {
  const auto stored = names_.store(name);
  if (!stored) return report(ScanErrorKind::no_room, stored.error(), dir, name);
  const auto inserted = scan_.tree.insert_scanned(dir, entry.stat);
  if (!inserted) {
    scan_.names.release(*stored);
    if (inserted.error().value == EEXIST) return met_again(dir, name, entry);
    return report(ScanErrorKind::no_room, inserted.error(), dir, name);
  }
  scan_.enter(*inserted, *stored, entry.stat, entry.is_mount_root);
  content.found.push_top(scan_.states, *inserted);
  ++counts_.directories;
}

/// A directory that is in the tree already. It has one place only on each mount: if it was met
/// before on this one, it has been moved since, and is perhaps counted where it no longer is.
void ScanWorker::met_again(DirIndex dir, const char* name, const EntryStat& entry) {
  const DirIndex met = scan_.tree.find(entry.stat.key);
  if (entry.is_mount_root || scan_.mount_root_of(dir) != scan_.mount_root_of(met))
    return report(ScanErrorKind::duplicate, Errno{EEXIST}, dir, name);
  scan_.tree.mark_suspect(scan_.tree.parent(met));
  report(ScanErrorKind::changed, Errno{EEXIST}, dir, name);
}

void ScanWorker::add_file(DirIndex dir, const char* name, const FileStat& stat, Content& content) {
  ++content.file_names;
  content.newest_ctime_ns = std::max(content.newest_ctime_ns, stat.ctime_ns);
  if (scan_.events != nullptr)
    scan_.events->push({.kind = ScanEvent::Kind::file, .dir = dir, .stat = stat});
  if (stat.nlink > 1) {
    ++counts_.linked_names;
    const Status recorded = scan_.links.add_scanned_name(dir, stat);
    if (recorded) return;
    // Counted as if it had this name only: rather too much than nothing.
    report(ScanErrorKind::no_room, recorded.error(), dir, name);
  }
  content.files.bytes += stat.size;
  content.files.disk += stat.blocks;
  content.files.unique += stat.blocks;
  ++content.files.files;
}

void ScanWorker::queue_found(DirIndex dir, Content& content, ScanSchedule::Caller caller) {
  if (content.found.count == 0) return;
  ScanState& state = scan_.state(dir);
  state.unopened.fetch_add(content.found.count, std::memory_order_relaxed);
  state.incomplete.fetch_add(content.found.count, std::memory_order_relaxed);
  scan_.schedule.add(number_, content.found, caller);
  content.found = {};
}

// --- Completing ------------------------------------------------------------------------------

// Without the tree's lock, whose shared side keeps subtrees where they are: during the scan nothing
// moves. Nor could it be held throughout: HardLinks takes its own lock first.
void ScanWorker::publish(DirIndex dir, const Content& content) {
  if (content.file_names == 0) return;
  counts_.files += content.file_names;
  scan_.tree.add_entries(dir, content.file_names);
  scan_.tree.add_file({.dir = dir}, content.files);
  scan_.tree.add(dir, content.files, clamp_to_now(content.newest_ctime_ns));
}

void ScanWorker::complete(DirIndex dir) {
  while (scan_.state(dir).incomplete.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    const DirIndex parent = scan_.tree.parent(dir);
    if (parent) scan_.tree.add(parent, scan_.tree.totals(dir), scan_.tree.node(dir).rctime_ns);
    scan_.leave(dir);
    if (!parent) return;
    dir = parent;
  }
}

void ScanWorker::report(ScanErrorKind kind, Errno error, DirIndex dir, std::string_view leaf) {
  if (makes_suspect(kind, error)) scan_.tree.mark_suspect(dir);
  if (!scan_.errors.count(kind)) return;
  const auto path = scan_.path_into(path_room(), dir, leaf);
  scan_.errors.keep(kind, error, path ? *path : leaf);
}

}  // namespace tally
