#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "core/result.hpp"
#include "core/units.hpp"

namespace tally {

/// What names an inode on one machine: device and inode number. The device is the kernel's own
/// 32-bit dev_t (12 bits major, 20 bits minor; include/linux/kdev_t.h).
struct FileKey {
  uint64_t ino = 0;
  uint32_t dev = 0;

  friend bool operator==(const FileKey&, const FileKey&) = default;
};

/// Packs a major and minor number the way the kernel does.
constexpr uint32_t pack_dev(uint32_t major, uint32_t minor) { return major << 20 | minor; }

/// Nanoseconds since the epoch. 2^63 ns reach to the year 2262; a later time counts as the last.
using TimeNs = int64_t;

/// What accounting needs to know of an inode, as statx(2) reported it at one moment.
struct FileStat {
  FileKey key = {};
  uint64_t mount_id = 0;  ///< which mount it was reached through; of which device if unknown
  uint32_t mode = 0;      ///< type and permission bits, as st_mode
  uint32_t nlink = 0;     ///< names on the filesystem, inside and outside the source
  Bytes size = {};
  Blocks blocks = {};
  TimeNs ctime_ns = 0;

  [[nodiscard]] bool is_directory() const { return S_ISDIR(mode); }

  static FileStat from(const struct statx& stx);
};

/// Asks statx(2) for the mount's id: for the one that is never used again (STATX_MNT_ID_UNIQUE,
/// Linux 6.8, not in glibc 2.36), where the kernel has it, in place of the other one.
constexpr unsigned mount_id_mask = STATX_MNT_ID | 0x4000U;
/// All that FileStat needs of statx(2).
constexpr unsigned file_stat_mask = STATX_BASIC_STATS | mount_id_mask;

/// statx(2) of `name` below `dir_fd`; with AT_EMPTY_PATH and "" of the descriptor itself.
/// Symbolic links are never followed. Thread-safe, allocates nothing.
Result<FileStat> stat_at(int dir_fd, const char* name, int flags = 0);

/// FileStat, and what else a scan wants to know.
struct EntryStat {
  FileStat stat;
  bool is_mount_root;  ///< of any mount, also a second one of the same filesystem; true if unknown
};

/// As stat_at(), but where something is to be mounted as soon as somebody goes there, goes there:
/// of an automount point that was never used, nothing would be counted.
Result<EntryStat> stat_entry_at(int dir_fd, const char* name);

/// stat_at of an open descriptor (O_PATH will do).
Result<FileStat> stat_fd(int fd);

}  // namespace tally
