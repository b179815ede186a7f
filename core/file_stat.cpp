#include "core/file_stat.hpp"

#include <fcntl.h>

namespace tally {

FileStat FileStat::from(const struct statx& stx) {
  return FileStat{
      .key = {.ino = stx.stx_ino, .dev = pack_dev(stx.stx_dev_major, stx.stx_dev_minor)},
      .mode = stx.stx_mode,
      .nlink = stx.stx_nlink,
      .size = {static_cast<int64_t>(stx.stx_size)},
      .blocks = {static_cast<int64_t>(stx.stx_blocks)},
      .ctime_ns = stx.stx_ctime.tv_sec * 1'000'000'000 + stx.stx_ctime.tv_nsec,
  };
}

Result<FileStat> stat_at(int dir_fd, const char* name, int flags) {
  struct statx stx;
  if (::statx(dir_fd, name, flags | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS,
              &stx) != 0)
    return last_error();
  return FileStat::from(stx);
}

Result<FileStat> stat_fd(int fd) { return stat_at(fd, "", AT_EMPTY_PATH); }

}  // namespace tally
