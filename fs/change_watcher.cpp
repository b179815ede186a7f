#include "fs/change_watcher.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <spdlog/spdlog.h>

#include "core/hot_path_guard.hpp"
#include "fs/background_thread.hpp"

namespace tally::fs {

namespace {

using namespace std::chrono_literals;

// Names that come and go, data, attributes and link counts. What was written through a mapping
// shows only when the file is closed.
constexpr uint64_t changes = FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO | FAN_MODIFY |
                             FAN_CLOSE_WRITE | FAN_ATTRIB | FAN_ONDIR;
constexpr uint64_t changes_of_data = FAN_MODIFY | FAN_CLOSE_WRITE;

// What waits is read in one go after this time: changes of one process in one directory become one
// event meanwhile. If there is much of it, the next go is earlier: the kernel keeps 16,384 events
// (fs.fanotify.max_queued_events) and then loses some.
constexpr std::chrono::milliseconds batch_pause = 50ms;
constexpr std::chrono::milliseconds busy_pause = 2ms;
constexpr std::size_t busy_events = 1024;
// How often it is looked whether a filesystem was met that is not watched yet.
constexpr std::chrono::milliseconds idle_pause = 500ms;

// A directory rests after it was marked. A recount takes one to two microseconds per entry: at most
// a tenth of the time is for those of one directory.
constexpr std::chrono::nanoseconds rest_least = 500ms;
constexpr std::chrono::nanoseconds rest_per_entry = 20us;
constexpr std::chrono::nanoseconds rest_most = 60s;
// vm.dirty_expire_centisecs, vm.dirty_writeback_centisecs, and some for the writing.
constexpr std::chrono::nanoseconds settling_delay = 38s;

std::size_t hash_of(const FileKey& key) {
  // Fibonacci hashing (Knuth, TAOCP 6.4).
  return ((key.ino ^ uint64_t{key.dev} << 32) * 0x9e3779b97f4a7c15U) >> 40;
}

std::system_error error_of(const char* what, Errno error) {
  return {error.value, std::generic_category(), what};
}

}  // namespace

ChangeWatcher::ChangeWatcher(Filesystem& filesystem)
    : filesystem_(filesystem),
      own_pid_(::getpid()),
      events_(::fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_DIR_FID | FAN_CLOEXEC | FAN_NONBLOCK,
                              O_RDONLY)),
      end_(::eventfd(0, EFD_CLOEXEC)),
      recent_(recent_max) {
  if (!events_) throw error_of("fanotify_init", {errno});
  if (!end_) throw error_of("eventfd", {errno});
  const int mount_fd = filesystem_.inodes().handles().mount_at(0);
  if (mount_fd < 0) throw error_of("file handles", {EOPNOTSUPP});
  if (const Status added = add_device(mount_fd); !added)
    throw error_of("fanotify_mark", added.error());
  devices_seen_ = 1;
}

ChangeWatcher::~ChangeWatcher() { stop(); }

void ChangeWatcher::start(Auditor& auditor) {
  auditor_ = &auditor;
  thread_ = start_background_thread("watcher", [this] { run(); });
}

void ChangeWatcher::stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  static_cast<void>(::eventfd_write(end_.get(), 1));
  thread_.join();
}

// --- Filesystems -----------------------------------------------------------------------------

Status ChangeWatcher::add_device(int mount_fd) {
  struct statfs filesystem;
  if (::fstatfs(mount_fd, &filesystem) != 0) return last_error();
  if (::fanotify_mark(events_.get(), FAN_MARK_ADD | FAN_MARK_FILESYSTEM, changes, mount_fd,
                      nullptr) != 0)
    return last_error();
  devices_[device_count_++] = {.id = filesystem.f_fsid, .mount_fd = mount_fd};
  return {};
}

/// Filesystems that are mounted below the source, once one of their inodes was met.
void ChangeWatcher::add_new_devices() {
  const FileHandles& handles = filesystem_.inodes().handles();
  for (; devices_seen_ < handles.mount_count(); ++devices_seen_) {
    const int mount_fd = handles.mount_at(devices_seen_);
    const Status added = mount_fd < 0 ? Status(failure(EOPNOTSUPP)) : add_device(mount_fd);
    if (added) continue;
    TALLY_HOT_PATH_PAUSE("logs");
    spdlog::info("changes behind the mount are not watched on a filesystem below: {}",
                 added.error().message());
  }
}

int ChangeWatcher::mount_of(const fsid_t& id) const {
  for (std::size_t i = 0; i < device_count_; ++i)
    if (std::memcmp(&devices_[i].id, &id, sizeof id) == 0) return devices_[i].mount_fd;
  return -1;
}

// --- Events ----------------------------------------------------------------------------------

void ChangeWatcher::run() {
  TALLY_HOT_PATH("watch");
  while (!stopping_) {
    wait(events_.get(), next_due_ns_ == never_ns ? idle_pause : batch_pause);
    add_new_devices();
    now_ns_ = Clock::now().time_since_epoch().count();
    const std::size_t events = take_events();
    if (next_due_ns_ <= now_ns_) mark_due();
    wait(-1, events >= busy_events ? busy_pause : batch_pause);
  }
}

/// Until `fd` (-1: none) is readable, the thread is to end, or the time is over.
void ChangeWatcher::wait(int fd, std::chrono::milliseconds limit) const {
  std::array<pollfd, 2> ready = {pollfd{.fd = end_.get(), .events = POLLIN, .revents = 0},
                                 pollfd{.fd = fd, .events = POLLIN, .revents = 0}};
  ::poll(ready.data(), ready.size(), static_cast<int>(limit.count()));
}

/// Reads what there is and returns how many events that were.
std::size_t ChangeWatcher::take_events() {
  std::size_t count = 0;
  while (!stopping_) {
    const ssize_t got = ::read(events_.get(), buffer_.data(), buffer_.size());
    if (got <= 0) return count;  // EAGAIN: no more
    auto left = static_cast<std::size_t>(got);
    const bool is_last = left < buffer_.size() / 2;
    // Copied, since the kernel aligns events to four bytes only, and their type wants eight.
    fanotify_event_metadata event;
    for (const std::byte* at = buffer_.data(); left >= sizeof event;
         at += event.event_len, left -= event.event_len) {
      std::memcpy(&event, at, sizeof event);
      if (event.event_len < sizeof event || event.event_len > left) break;
      take(event, at + event.metadata_len);
      ++count;
    }
    // What comes while these were taken waits for the next go.
    if (is_last) return count;
  }
  return count;
}

void ChangeWatcher::take(const fanotify_event_metadata& event, const std::byte* records) {
  if ((event.mask & FAN_Q_OVERFLOW) != 0) return auditor_->doubt_everything();
  if (event.pid == own_pid_) return;
  // One record follows, of the directory; by its type the kernel says whether the change was one of
  // a name in it.
  const auto* about = reinterpret_cast<const fanotify_event_info_fid*>(records);
  if (event.event_len < event.metadata_len + sizeof *about + sizeof(file_handle)) return;
  const uint8_t type = about->hdr.info_type;
  if (type != FAN_EVENT_INFO_TYPE_DFID && type != FAN_EVENT_INFO_TYPE_FID) return;
  take_directory(*about, event.mask);
}

void ChangeWatcher::take_directory(const fanotify_event_info_fid& about, uint64_t mask) {
  fsid_t id;
  std::memcpy(&id, &about.fsid, sizeof id);
  // open_by_handle_at(2) does not write to the handle, for all its type says.
  auto* const handle = const_cast<file_handle*>(reinterpret_cast<const file_handle*>(about.handle));
  const UniqueFd fd(::open_by_handle_at(mount_of(id), handle, O_PATH | O_CLOEXEC));
  if (!fd) {
    // It is gone, which is an event of its parent; or it can't be told whether it is.
    if (errno != ESTALE && errno != ENOENT) auditor_->doubt_everything();
    return;
  }
  const auto now = stat_fd(fd.get());
  if (!now) return;
  if (now->is_directory()) return note(now->key, (mask & changes_of_data) != 0);
  // By which name in which directory a file was opened is not known where it was by its handle.
  if (now->nlink != 0) auditor_->doubt_everything();
}

// --- Marking ---------------------------------------------------------------------------------

/// Something changed in a directory, if it is one of ours. (If it is in the tree only later, it is
/// read after that.)
void ChangeWatcher::note(const FileKey& key, bool is_data) {
  if (!filesystem_.accounts().tree().find(key)) return;
  Recent& recent = recent_[hash_of(key) & (recent_max - 1)];
  if (recent.key != key) {
    if (recent.is_due) mark(recent);
    recent = {.key = key, .rests_until_ns = 0, .settles_at_ns = never_ns, .is_due = false};
  }
  if (is_data) recent.settles_at_ns = now_ns_ + settling_delay.count();
  recent.is_due = now_ns_ < recent.rests_until_ns;
  if (!recent.is_due) mark(recent);
  next_due_ns_ = std::min(next_due_ns_, due_at(recent));
}

int64_t ChangeWatcher::due_at(const Recent& recent) {
  return recent.is_due ? std::min(recent.rests_until_ns, recent.settles_at_ns)
                       : recent.settles_at_ns;
}

/// Has the directory recounted, and lets it rest from now on.
void ChangeWatcher::mark(Recent& recent) {
  DirTree& tree = filesystem_.accounts().tree();
  const DirIndex dir = tree.hold(recent.key);
  if (!dir) return;
  tree.mark_suspect(dir);
  const auto rest = rest_per_entry * std::max<int64_t>(tree.counters(dir).entries(), 0);
  recent.rests_until_ns = now_ns_ + std::clamp(rest, rest_least, rest_most).count();
  tree.release(dir);
}

/// Marks the directories whose rest is over, and those that have settled.
void ChangeWatcher::mark_due() {
  next_due_ns_ = never_ns;
  for (std::size_t i = 0; i < recent_max; ++i) {
    Recent& recent = recent_[i];
    if (recent.key == FileKey()) continue;
    if (recent.settles_at_ns <= now_ns_) {
      recent.settles_at_ns = never_ns;
      recent.is_due = true;
    }
    if (recent.is_due && recent.rests_until_ns <= now_ns_) {
      mark(recent);
      recent.is_due = false;
    }
    next_due_ns_ = std::min(next_due_ns_, due_at(recent));
  }
}

}  // namespace tally::fs
