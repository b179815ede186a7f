#include "core/file_stat.hpp"

#include <fcntl.h>

#include <limits>

#include "core/unique_fd.hpp"

namespace tally {

namespace {

/// Beyond what 64 bits hold, the earliest or the latest time that they do.
TimeNs to_ns(const statx_timestamp& time) {
  constexpr int64_t ns_per_s = 1'000'000'000;
  TimeNs result;
  if (!__builtin_mul_overflow(time.tv_sec, ns_per_s, &result) &&
      !__builtin_add_overflow(result, time.tv_nsec, &result))
    return result;
  return time.tv_sec < 0 ? std::numeric_limits<TimeNs>::min() : std::numeric_limits<TimeNs>::max();
}

bool statx_at(int dir_fd, const char* name, int flags, struct statx& stx) {
  return ::statx(dir_fd, name, flags | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, file_stat_mask,
                 &stx) == 0;
}

}  // namespace

FileStat FileStat::from(const struct statx& stx) {
  const uint32_t dev = pack_dev(stx.stx_dev_major, stx.stx_dev_minor);
  return FileStat{
      .key = {.ino = stx.stx_ino, .dev = dev},
      .mount_id = (stx.stx_mask & mount_id_mask) != 0 ? stx.stx_mnt_id : dev,  // Linux 5.8
      .mode = stx.stx_mode,
      .nlink = stx.stx_nlink,
      .size = {static_cast<int64_t>(stx.stx_size)},
      .blocks = {static_cast<int64_t>(stx.stx_blocks)},
      .ctime_ns = to_ns(stx.stx_ctime),
  };
}

Result<FileStat> stat_at(int dir_fd, const char* name, int flags) {
  struct statx stx;
  if (!statx_at(dir_fd, name, flags, stx)) return last_error();
  return FileStat::from(stx);
}

Result<EntryStat> stat_entry_at(int dir_fd, const char* name) {
  struct statx stx;
  if (!statx_at(dir_fd, name, 0, stx)) return last_error();
  if ((stx.stx_attributes & STATX_ATTR_AUTOMOUNT) != 0) {
    const UniqueFd mounted(::openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (mounted && !statx_at(mounted.get(), "", AT_EMPTY_PATH, stx)) return last_error();
  }
  const bool is_known = (stx.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0;  // Linux 5.8
  return EntryStat{
      .stat = FileStat::from(stx),
      .is_mount_root = !is_known || (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0,
  };
}

Result<FileStat> stat_fd(int fd) { return stat_at(fd, "", AT_EMPTY_PATH); }

}  // namespace tally
