#include "fs/file_handle.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <cstring>

#include "core/file_stat.hpp"

namespace tally::fs {

namespace {

/// struct file_handle (open_by_handle_at(2)) with room for an Identity's bytes.
struct KernelHandle {
  alignas(
      file_handle) std::array<std::byte, sizeof(file_handle) + Identity::bytes_max> storage = {};

  file_handle& header() { return *reinterpret_cast<file_handle*>(storage.data()); }
  std::byte* bytes() { return storage.data() + sizeof(file_handle); }
};

Result<Identity> handle_of(int fd, const char* name = "") {
  KernelHandle handle;
  handle.header().handle_bytes = Identity::bytes_max;
  int mount_id = 0;
  if (::name_to_handle_at(fd, name, &handle.header(), &mount_id, AT_EMPTY_PATH) != 0)
    return last_error();
  Identity identity;
  identity.kind = Identity::Kind::handle;
  identity.handle_type = handle.header().handle_type;
  identity.size = static_cast<uint8_t>(handle.header().handle_bytes);
  std::memcpy(identity.bytes.data(), handle.bytes(), identity.size);
  return identity;
}

Result<UniqueFd> open_handle(int mount_fd, const Identity& identity) {
  KernelHandle handle;
  handle.header().handle_bytes = identity.size;
  handle.header().handle_type = identity.handle_type;
  std::memcpy(handle.bytes(), identity.bytes.data(), identity.size);
  UniqueFd fd(::open_by_handle_at(mount_fd, &handle.header(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return last_error();
  return fd;
}

Result<Identity> birth_time_of(int fd, const char* name) {
  struct statx stx;
  if (::statx(fd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BTIME, &stx) != 0)
    return last_error();
  Identity identity;
  if ((stx.stx_mask & STATX_BTIME) == 0) return identity;
  const int64_t birth_ns = stx.stx_btime.tv_sec * 1'000'000'000 + stx.stx_btime.tv_nsec;
  identity.kind = Identity::Kind::birth_time;
  identity.size = sizeof birth_ns;
  std::memcpy(identity.bytes.data(), &birth_ns, sizeof birth_ns);
  return identity;
}

/// A descriptor for opening handles, or none where handles don't work.
UniqueFd probe(int directory_fd) {
  UniqueFd mount(::openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct statfs filesystem;
  if (!mount || ::fstatfs(mount.get(), &filesystem) != 0) return {};
  // A FUSE filesystem gives handles, but without FUSE_EXPORT_SUPPORT it forgets them as soon as the
  // inode leaves the kernel's cache (fs/fuse/inode.c, fuse_get_dentry).
  if (filesystem.f_type == FUSE_SUPER_MAGIC) return {};

  const Result<Identity> identity = handle_of(directory_fd);
  if (!identity) return {};
  const Result<UniqueFd> again = open_handle(mount.get(), *identity);
  if (!again) return {};
  const Result<FileStat> expected = stat_fd(directory_fd);
  const Result<FileStat> found = stat_fd(again->get());
  if (!expected || !found || expected->key != found->key) return {};
  return mount;
}

unsigned long restrictions_of(int fd) {
  constexpr unsigned long all = ST_NOSUID | ST_NODEV;
  struct statvfs mount;
  return ::fstatvfs(fd, &mount) == 0 ? mount.f_flag & all : all;
}

}  // namespace

unsigned long FileHandles::restrictions(MountIndex mount) const {
  return mount == unknown_mount ? ST_NOSUID | ST_NODEV : mounts_[mount].restrictions;
}

MountIndex FileHandles::add_mount(uint64_t mount_id, int fd) {
  if (const MountIndex known = find(mount_id); known != unknown_mount) return known;
  MutexLock lock(mutex_);
  if (const MountIndex known = find(mount_id); known != unknown_mount) return known;
  const std::size_t count = mount_count_.load(std::memory_order_relaxed);
  if (count == mounts_max) return unknown_mount;
  mounts_[count].id = mount_id;
  mounts_[count].root = probe(fd);
  mounts_[count].restrictions = restrictions_of(fd);
  mount_count_.store(count + 1, std::memory_order_release);
  return static_cast<MountIndex>(count);
}

MountIndex FileHandles::find(uint64_t mount_id) const {
  const std::size_t count = mount_count();
  for (std::size_t i = 0; i < count; ++i)
    if (mounts_[i].id == mount_id) return static_cast<MountIndex>(i);
  return unknown_mount;
}

Result<Identity> FileHandles::identify(MountIndex mount, int fd, const char* name) const {
  return usable(mount) ? handle_of(fd, name) : birth_time_of(fd, name);
}

Result<UniqueFd> FileHandles::open(MountIndex mount, const Identity& identity) const {
  if (!usable(mount) || identity.kind != Identity::Kind::handle) return failure(EOPNOTSUPP);
  return open_handle(mount_at(mount), identity);
}

}  // namespace tally::fs
