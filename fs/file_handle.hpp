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

/// A mount at or below the source: an index in FileHandles.
using MountIndex = uint8_t;
inline constexpr MountIndex root_mount = 0;  ///< that of the source itself, which is added first
inline constexpr MountIndex unknown_mount = 255;  ///< one too many

/// Identities of inodes, and opening them again by file handle, through the mount that they were
/// met on: the same filesystem may be mounted in several places, and more restricted in one of
/// them. Whether a mount has usable handles is decided once, with the first of its inodes that is
/// seen: the way into a mount is its root.
///
/// open_by_handle_at(2) needs a descriptor on the mount that is not O_PATH, of which one is kept
/// per mount, and CAP_DAC_READ_SEARCH. Thread-safe. Allocates nothing.
class FileHandles {
 public:
  /// Mounts beyond this number are treated as having no handles and all restrictions.
  static constexpr std::size_t mounts_max = 64;

  /// Decides whether inodes of this mount can be opened by handle, and notes how it is restricted,
  /// unless that is done already. `mount_id`: as in FileStat. `fd`: any inode on it, O_PATH will
  /// do. If it is no directory the answer is no.
  MountIndex add_mount(uint64_t mount_id, int fd) TALLY_EXCLUDES(mutex_);

  /// Whether inodes of this mount can be opened by handle.
  [[nodiscard]] bool usable(MountIndex mount) const {
    return mount != unknown_mount && mount_at(mount) >= 0;
  }

  /// Which of ST_NOSUID and ST_NODEV (statvfs(3)) the mount has; both if it is not known.
  [[nodiscard]] unsigned long restrictions(MountIndex mount) const;

  /// Mounts that were decided on, and of each a descriptor for open_by_handle_at(2), which lives as
  /// long as this object; -1 if its handles can't be used.
  [[nodiscard]] std::size_t mount_count() const {
    return mount_count_.load(std::memory_order_acquire);
  }
  [[nodiscard]] int mount_at(std::size_t i) const { return mounts_[i].root.get(); }

  /// The identity of an inode of this mount: the one that is open as `fd` (O_PATH will do), or the
  /// one by this name in the directory `fd`.
  [[nodiscard]] Result<Identity> identify(MountIndex mount, int fd, const char* name = "") const;

  /// An O_PATH descriptor of the inode; ESTALE if it no longer exists, EOPNOTSUPP if its identity
  /// is no handle.
  [[nodiscard]] Result<UniqueFd> open(MountIndex mount, const Identity& identity) const;

 private:
  struct Mount {
    uint64_t id = 0;
    UniqueFd root;  // none: no handles
    unsigned long restrictions = 0;
  };

  [[nodiscard]] MountIndex find(uint64_t mount_id) const;

  Mutex mutex_;  // held to add a mount
  std::array<Mount, mounts_max> mounts_;
  std::atomic<std::size_t> mount_count_ = 0;  // mounts below it never change again
};

}  // namespace tally::fs
