#pragma once

#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>

#include "core/mapping.hpp"
#include "core/result.hpp"
#include "core/unique_fd.hpp"
#include "fs/auditor.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

/// Hears of what others change below the mount, from fanotify(7), and has the directories where
/// it happened recounted: marks them suspect, for the Auditor.
///
/// The kernel tells of every change on the filesystem, ours too, by the directory it was made in;
/// changes of the same process in the same directory are told of once for all that wait to be read.
/// So the thread reads in batches with a pause in between. Ours are known by the process.
///
/// A directory where something changes all the time is marked again after a rest, which is longer
/// the more entries it has; until then its counters lag, in silence. Where data was written it is
/// marked once more after the kernel has written that back, since blocks move then.
///
/// What is not known to be in one directory (events were lost; a file was changed that is open by
/// its handle, as an NFS server may have it) makes everything doubtful, which takes an audit.
///
/// Not heard of: what is written through a mapping of a file, until it is closed and unmapped.
/// Allocates nothing after construction.
class ChangeWatcher {
 public:
  /// From now on the kernel collects what happens on the filesystem of the root. Throws
  /// std::system_error if it refuses: without CAP_SYS_ADMIN, or where inodes have no file handles.
  explicit ChangeWatcher(Filesystem& filesystem);

  /// stop().
  ~ChangeWatcher();
  ChangeWatcher(const ChangeWatcher&) = delete;
  ChangeWatcher& operator=(const ChangeWatcher&) = delete;

  /// Starts the thread, once; the auditor must outlive it. Throws std::system_error.
  void start(Auditor& auditor);

  /// Ends the thread.
  void stop();

 private:
  using Clock = std::chrono::steady_clock;

  /// A filesystem at or below the source: what identifies it in events, and the way into it.
  struct Device {
    fsid_t id;
    int mount_fd;
  };
  /// A directory that was marked lately, or is to be.
  struct Recent {
    FileKey key;
    int64_t rests_until_ns;  // of Clock, as all times here
    int64_t settles_at_ns;   // to be marked once more
    bool is_due;             // as soon as its rest is over
  };
  static constexpr int64_t never_ns = INT64_MAX;
  static constexpr std::size_t recent_max = 1 << 16;  // a power of two

  Status add_device(int mount_fd);
  void add_new_devices();

  void run();
  void wait(int fd, std::chrono::milliseconds limit) const;
  std::size_t take_events();
  void take(const fanotify_event_metadata& event, const std::byte* records);
  void take_directory(const fanotify_event_info_fid& about, uint64_t mask);
  [[nodiscard]] int mount_of(const fsid_t& id) const;
  void note(const FileKey& key, bool is_data);
  void mark(Recent& recent);
  [[nodiscard]] static int64_t due_at(const Recent& recent);
  void mark_due();

  Filesystem& filesystem_;
  Auditor* auditor_ = nullptr;
  const pid_t own_pid_;
  UniqueFd events_;
  UniqueFd end_;  // an eventfd, readable when the thread is to end
  std::array<Device, FileHandles::mounts_max> devices_ = {};
  std::size_t device_count_ = 0;    // in devices_
  std::size_t devices_seen_ = 0;    // of those that the filesystem knows
  ReservedArray<Recent> recent_;    // at the hash of the key; a newer one takes the place
  int64_t next_due_ns_ = never_ns;  // of all of these
  int64_t now_ns_ = 0;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
  alignas(fanotify_event_metadata) std::array<std::byte, 1 << 15> buffer_;
};

}  // namespace tally::fs
