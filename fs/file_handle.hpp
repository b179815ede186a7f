#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/result.hpp"
#include "core/thread_safety.hpp"
#include "core/unique_fd.hpp"

namespace tally::fs {

/// What tells an inode from a later one with the same device and inode number: its file handle
/// (name_to_handle_at(2)), which holds the inode's generation; where a filesystem has no handles,
/// its birth time; where it has not even that, nothing (then all identities are equal).
struct Identity {
  /// Enough for ext4 (8), xfs (16), tmpfs (12), btrfs (20) and their like.
  static constexpr std::size_t bytes_max = 40;
  enum class Kind : uint8_t { none, handle, birth_time };

  std::array<std::byte, bytes_max> bytes = {};
  int32_t handle_type = 0;
  uint8_t size = 0;
  Kind kind = Kind::none;

  friend bool operator==(const Identity&, const Identity&) = default;
};

/// Identities of inodes, and opening them again by file handle. Whether a device has usable handles
/// is decided once, with the first of its inodes that is seen: the way into a device is its root.
///
/// open_by_handle_at(2) needs a descriptor on the mount that is not O_PATH, of which one is kept
/// per device, and CAP_DAC_READ_SEARCH. Thread-safe. Allocates nothing.
class FileHandles {
 public:
  /// Devices beyond this number are treated as having no handles.
  static constexpr std::size_t devices_max = 64;

  /// Decides whether inodes of this device can be opened by handle, and notes how its mount is
  /// restricted, unless that is done already.
  /// `fd`: any inode on it, O_PATH will do. If it is no directory the answer is no.
  void add_device(uint32_t dev, int fd) TALLY_EXCLUDES(mutex_);

  /// Whether inodes of this device can be opened by handle.
  [[nodiscard]] bool usable(uint32_t dev) const { return mount_fd(dev) >= 0; }

  /// Which of ST_NOSUID and ST_NODEV (statvfs(3)) the mount of this device has; both if it is not
  /// known.
  [[nodiscard]] unsigned long restrictions(uint32_t dev) const;

  /// Devices that were decided on, and of each a descriptor for open_by_handle_at(2), which lives
  /// as long as this object; -1 if its handles can't be used.
  [[nodiscard]] std::size_t device_count() const {
    return device_count_.load(std::memory_order_acquire);
  }
  [[nodiscard]] int mount_at(std::size_t i) const { return devices_[i].mount.get(); }

  /// The identity of an inode of this device: the one that is open as `fd` (O_PATH will do), or the
  /// one by this name in the directory `fd`.
  [[nodiscard]] Result<Identity> identify(uint32_t dev, int fd, const char* name = "") const;

  /// An O_PATH descriptor of the inode; ESTALE if it no longer exists, EOPNOTSUPP if its identity
  /// is no handle.
  [[nodiscard]] Result<UniqueFd> open(uint32_t dev, const Identity& identity) const;

 private:
  struct Device {
    uint32_t dev = 0;
    UniqueFd mount;  // none: no handles
    unsigned long restrictions = 0;
  };

  [[nodiscard]] const Device* find(uint32_t dev) const;
  [[nodiscard]] int mount_fd(uint32_t dev) const;

  Mutex mutex_;  // held to add a device
  std::array<Device, devices_max> devices_;
  std::atomic<std::size_t> device_count_ = 0;  // devices below it never change again
};

}  // namespace tally::fs
