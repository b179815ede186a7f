// File data: read, write, flush, fsync, fallocate, copy_file_range, lseek, ioctl.

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "core/hot_path_guard.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

namespace {

Status status_of(int result) {
  if (result != 0) return last_error();
  return {};
}

/// What closing a descriptor of the file tells: network filesystems report then what became of the
/// writes before. Where there is no descriptor to be had, a sync tells as much.
Status close_copy(int fd) {
  const int copy = ::dup(fd);
  return status_of(copy >= 0 ? ::close(copy) : ::fsync(fd));
}

Result<std::span<const std::byte>> read_buffered(int fd, std::span<std::byte> buffer,
                                                 off_t offset) {
  std::size_t done = 0;
  while (done < buffer.size()) {
    const ssize_t got =
        ::pread(fd, buffer.data() + done, buffer.size() - done, offset + static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return last_error();
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return buffer.first(done);
}

/// Writes all of it, or as much as there is room for. An error after a part is not told: the caller
/// learns of it from the next write.
Result<std::size_t> write_all(int fd, std::span<const char> data, off_t offset, bool append) {
  std::size_t done = 0;
  do {
    const iovec rest = {.iov_base = const_cast<char*>(data.data() + done),
                        .iov_len = data.size() - done};
    const ssize_t written =
        ::pwritev2(fd, &rest, 1, offset + static_cast<off_t>(done), append ? RWF_APPEND : 0);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && done == 0) return last_error();
    if (written <= 0) break;
    done += static_cast<std::size_t>(written);
  } while (done < data.size());
  return done;
}

/// The length of what an ioctl on a file returns; nothing if it is not allowed. They run with the
/// privileges of the daemon: only those are passed on for which the kernel has checked the caller
/// (fs/file_attr.c, vfs_fileattr_set).
std::optional<std::size_t> ioctl_result_size_bytes(unsigned command) {
  switch (command) {
    case FS_IOC_GETFLAGS:
      return sizeof(int);
    case FS_IOC_FSGETXATTR:
      return sizeof(fsxattr);
    case FS_IOC_SETFLAGS:
    case FS_IOC_FSSETXATTR:
      return 0;
    default:
      return std::nullopt;
  }
}

}  // namespace

/// Before what clears the set-id bits of the inode behind `fd` unless the caller may keep them,
/// which depends on its capabilities and groups (fs/attr.c, setattr_should_drop_suidgid). Most
/// files have none, and looking is much cheaper than asking for these.
Status Filesystem::become_writer(const Caller& caller, int fd) {
  struct stat now;
  if (::fstat(fd, &now) != 0) return last_error();
  const bool has_set_id = (now.st_mode & (S_ISUID | S_ISGID)) != 0;
  return has_set_id ? credentials_.become_exactly(caller) : credentials_.become(caller);
}

/// Before what the kernel writes back, of which it does not say whose it is: what is reserved for
/// root, and quotas, are for the owner of the file.
Status Filesystem::become_owner(int fd) {
  struct stat now;
  if (::fstat(fd, &now) != 0) return last_error();
  return credentials_.become_owner(now.st_uid, now.st_gid);
}

Result<std::span<const std::byte>> Filesystem::read(OpenFile& file,
                                                    AlignedBufferPool::Lease& buffer,
                                                    std::size_t size_bytes, off_t offset) {
  TALLY_HOT_PATH("read");
  size_bytes = std::min(size_bytes, options_.buffer_size_bytes);
  if (options_.data_path == DataPath::direct)
    return file.direct.read(static_cast<uint64_t>(offset), size_bytes, buffer.bytes());
  return read_buffered(file.fd.get(), buffer.bytes().first(size_bytes), offset);
}

Result<std::size_t> Filesystem::write(const Caller& caller, OpenFile& file,
                                      std::span<const char> data, off_t offset, WriteKind kind) {
  TALLY_HOT_PATH("write");
  const Status became = kind == WriteKind::from_mapping ? become_owner(file.fd.get())
                                                        : become_writer(caller, file.fd.get());
  if (!became) return std::unexpected(became.error());
  const auto written = write_all(file.fd.get(), data, offset, kind == WriteKind::append);
  // Also after a failure: blocks may have been allocated.
  observe_after(file, written.has_value());
  return written;
}

Status Filesystem::flush(OpenFile& file) {
  TALLY_HOT_PATH("flush");
  const bool was_written = file.written.load(std::memory_order_relaxed);
  const Status closed = was_written ? close_copy(file.fd.get()) : Status();
  observe_after(file, false);
  return closed;
}

Status Filesystem::fsync(OpenFile& file, bool data_only) {
  TALLY_HOT_PATH("fsync");
  const int fd = file.fd.get();
  const Status synced = status_of(data_only ? ::fdatasync(fd) : ::fsync(fd));
  observe_after(file, false);
  return synced;
}

Status Filesystem::fallocate(const Caller& caller, OpenFile& file, int mode, off_t offset,
                             off_t length) {
  TALLY_HOT_PATH("fallocate");
  if (const Status became = become_writer(caller, file.fd.get()); !became) return became;
  int result;
  do {
    result = ::fallocate(file.fd.get(), mode, offset, length);
  } while (result != 0 && errno == EINTR);
  const Status allocated = status_of(result);
  observe_after(file, allocated.has_value());
  return allocated;
}

Result<std::size_t> Filesystem::copy_file_range(const Caller& caller, OpenFile& source,
                                                off_t source_offset, OpenFile& target,
                                                off_t target_offset, std::size_t size_bytes,
                                                unsigned flags) {
  TALLY_HOT_PATH("copy_file_range");
  const Status became = become_writer(caller, target.fd.get());
  if (!became) return std::unexpected(became.error());
  const ssize_t result = ::copy_file_range(source.fd.get(), &source_offset, target.fd.get(),
                                           &target_offset, size_bytes, flags);
  const auto copied = result >= 0 ? Result<std::size_t>(static_cast<std::size_t>(result))
                                  : Result<std::size_t>(last_error());
  observe_after(target, copied.has_value());
  return copied;
}

Result<off_t> Filesystem::lseek(OpenFile& file, off_t offset, int whence) {
  TALLY_HOT_PATH("lseek");
  const off_t found = ::lseek(file.fd.get(), offset, whence);
  if (found < 0) return last_error();
  return found;
}

Result<std::size_t> Filesystem::ioctl(const Caller& caller, OpenFile& file, unsigned command,
                                      std::span<const char> input, std::span<char> output) {
  TALLY_HOT_PATH("ioctl");
  const auto result_size_bytes = ioctl_result_size_bytes(command);
  if (!result_size_bytes) return failure(ENOTTY);
  alignas(fsxattr) std::array<char, sizeof(fsxattr)> argument = {};
  if (input.size() > argument.size() || *result_size_bytes > output.size()) return failure(EINVAL);
  std::copy(input.begin(), input.end(), argument.begin());
  // The kernel has checked who owns the file; the lower filesystem may ask for more (ext4: for
  // CAP_SYS_RESOURCE, of who changes how a file is journalled).
  if (const Status became = credentials_.become_exactly(caller); !became)
    return std::unexpected(became.error());
  const Status done = status_of(::ioctl(file.fd.get(), command, argument.data()));
  if (*result_size_bytes == 0) observe_after(file, done.has_value());
  if (!done) return std::unexpected(done.error());
  std::copy_n(argument.begin(), *result_size_bytes, output.begin());
  return *result_size_bytes;
}

}  // namespace tally::fs
