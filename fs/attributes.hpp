#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "core/file_stat.hpp"
#include "core/result.hpp"

namespace tally::fs {

/// statx(2) of an open descriptor (O_PATH will do) with all that stat(2) tells, and the birth time
/// if there is one. Never follows.
Result<struct statx> statx_fd(int fd);

/// What users see as st_ino: the lower inode number on the root's device. On other devices (a
/// filesystem mounted below the source) a hash of device and number, since the whole mount has one
/// st_dev and numbers would collide.
uint64_t visible_inode_number(const FileKey& key, uint32_t root_device);

/// What is replied as stat(2), all fields as observed but st_ino. st_dev is the kernel's to fill.
struct stat to_stat(const struct statx& stx, uint32_t root_device);

/// Has the attributes of a file claim no more than a mount below the source allows, which the mount
/// as a whole does not know: with ST_NOSUID (statvfs(3)) no setuid and setgid, with ST_NODEV no
/// device.
void restrict_attributes(struct stat& attributes, unsigned long restrictions);

}  // namespace tally::fs
