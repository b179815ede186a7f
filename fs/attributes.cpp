#include "fs/attributes.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include <xxhash.h>

namespace tally::fs {

namespace {

timespec to_timespec(const statx_timestamp& time) {
  return {.tv_sec = time.tv_sec, .tv_nsec = time.tv_nsec};
}

}  // namespace

Result<struct statx> statx_fd(int fd) {
  struct statx stx;
  constexpr int flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  if (::statx(fd, "", flags, file_stat_mask | STATX_BTIME, &stx) != 0) return last_error();
  return stx;
}

uint64_t visible_inode_number(const FileKey& key, uint32_t root_device) {
  if (key.dev == root_device) return key.ino;
  return XXH3_64bits_withSeed(&key.ino, sizeof key.ino, key.dev);
}

struct stat to_stat(const struct statx& stx, uint32_t root_device) {
  struct stat attributes = {};
  attributes.st_ino = visible_inode_number(FileStat::from(stx).key, root_device);
  attributes.st_mode = stx.stx_mode;
  attributes.st_nlink = stx.stx_nlink;
  attributes.st_uid = stx.stx_uid;
  attributes.st_gid = stx.stx_gid;
  attributes.st_rdev = makedev(stx.stx_rdev_major, stx.stx_rdev_minor);
  attributes.st_size = static_cast<off_t>(stx.stx_size);
  attributes.st_blksize = static_cast<blksize_t>(stx.stx_blksize);
  attributes.st_blocks = static_cast<blkcnt_t>(stx.stx_blocks);
  attributes.st_atim = to_timespec(stx.stx_atime);
  attributes.st_mtim = to_timespec(stx.stx_mtime);
  attributes.st_ctim = to_timespec(stx.stx_ctime);
  return attributes;
}

void restrict_attributes(struct stat& attributes, unsigned long restrictions) {
  if (restrictions & ST_NOSUID && S_ISREG(attributes.st_mode))
    attributes.st_mode &= ~static_cast<mode_t>(S_ISUID | S_ISGID);
  if (restrictions & ST_NODEV) attributes.st_rdev = 0;
}

}  // namespace tally::fs
