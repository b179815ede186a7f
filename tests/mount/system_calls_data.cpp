// SystemCalls: data and attributes.

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "tests/mount/system_calls.hpp"

namespace tally::test {

namespace {

constexpr const char* xattr_name = "user.random";

bool write_at(int fd, uint32_t offset, uint32_t length) {
  const std::string bytes(length, 'w');
  return ::pwrite(fd, bytes.data(), bytes.size(), offset) == static_cast<ssize_t>(length);
}

bool allocate_at(int fd, uint32_t mode, uint32_t offset, uint32_t length) {
  constexpr std::array modes = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
  return ::fallocate(fd, modes[mode % modes.size()], offset, off_t{length} + 1) == 0;
}

bool set_value(const std::string& path, uint32_t length) {
  const std::string value(length, 'v');
  return ::lsetxattr(path.c_str(), xattr_name, value.data(), value.size(), 0) == 0;
}

}  // namespace

/// The file that the first operand names. Whatever type it has: nothing blocks, nothing is
/// followed.
UniqueFd SystemCalls::open_file(const Operands& given, int flags) {
  if (!has_name(given[0])) return {};
  return UniqueFd(
      ::open(path_of(given[0]).c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644));
}

bool SystemCalls::write(const Operands& given) {
  const UniqueFd fd = open_file(given, O_WRONLY);
  return fd && write_at(fd.get(), given[1], given[2]);
}

bool SystemCalls::append(const Operands& given) {
  if (!has_name(given[0])) return false;
  std::string path = path_of(given[0]);
  if (place_.fault == CallFault::append_behind)
    path.replace(0, place_.directory.size(), place_.lower);
  const UniqueFd fd(
      ::open(path.c_str(), O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  return fd && write_at(fd.get(), 0, given[1]);
}

/// In pages that the file has; half of the time without waiting until they are written.
bool SystemCalls::write_mapped(const Operands& given) {
  const UniqueFd fd = open_file(given, O_RDWR);
  struct stat st{};
  if (!fd || ::fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) return false;
  const auto size = static_cast<std::size_t>(st.st_size);
  const std::size_t offset = given[1] % size;
  const std::size_t length = std::min<std::size_t>(given[2], size - offset);
  void* const mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return false;
  std::memset(static_cast<char*>(mapped) + offset, 'm', length);
  const bool synced = given[2] % 2 == 0 || ::msync(mapped, size, MS_SYNC) == 0;
  return ::munmap(mapped, size) == 0 && synced;
}

bool SystemCalls::truncate(const Operands& given) {
  return has_name(given[0]) && ::truncate(path_of(given[0]).c_str(), given[1]) == 0;
}

bool SystemCalls::open_truncating(const Operands& given) {
  return bool{open_file(given, O_WRONLY | O_TRUNC)};
}

bool SystemCalls::create_again(const Operands& given) {
  return bool{open_file(given, O_WRONLY | O_CREAT | O_TRUNC)};
}

bool SystemCalls::allocate(const Operands& given) {
  const UniqueFd fd = open_file(given, O_WRONLY);
  return fd && allocate_at(fd.get(), given[1], given[2], given[3]);
}

bool SystemCalls::copy(const Operands& given) {
  const auto [from, to, length, unused] = given;
  const UniqueFd source = open_file({from}, O_RDONLY);
  const UniqueFd target = open_file({to}, O_WRONLY);
  off_t source_offset = 0;
  off_t target_offset = length / 2;
  return source && target &&
         ::copy_file_range(source.get(), &source_offset, target.get(), &target_offset, length, 0) >=
             0;
}

bool SystemCalls::read(const Operands& given) {
  const UniqueFd fd = open_file(given, O_RDONLY);
  char bytes[16'384];
  return fd && ::read(fd.get(), bytes, sizeof bytes) >= 0;
}

bool SystemCalls::change_mode(const Operands& given) {
  return has_name(given[0]) && ::chmod(path_of(given[0]).c_str(), 0700 + given[1] % 64) == 0;
}

bool SystemCalls::change_owner(const Operands& given) {
  return has_name(given[0]) && ::lchown(path_of(given[0]).c_str(), given[1], given[1]) == 0;
}

bool SystemCalls::change_times(const Operands& given) {
  if (!has_name(given[0])) return false;
  const timespec times[] = {{.tv_sec = given[1], .tv_nsec = 0}, {.tv_sec = given[1], .tv_nsec = 0}};
  return ::utimensat(AT_FDCWD, path_of(given[0]).c_str(), times, AT_SYMLINK_NOFOLLOW) == 0;
}

bool SystemCalls::change_directory_mode(const Operands& given) {
  return has_dir(given[0]) && ::chmod(path_of_dir(given[0]).c_str(), 0700 + given[1] % 64) == 0;
}

bool SystemCalls::set_xattr(const Operands& given) {
  return has_name(given[0]) && set_value(path_of(given[0]), given[1]);
}

bool SystemCalls::remove_xattr(const Operands& given) {
  return has_name(given[0]) && ::lremovexattr(path_of(given[0]).c_str(), xattr_name) == 0;
}

bool SystemCalls::set_directory_xattr(const Operands& given) {
  return has_dir(given[0]) && set_value(path_of_dir(given[0]), given[1]);
}

// --- Through handles -------------------------------------------------------------------------

bool SystemCalls::open(const Operands& given) {
  const auto [handle, name, unused, unused_too] = given;
  if (!tree_.is_fresh_handle(handle)) return false;
  UniqueFd fd = open_file({name}, O_RDWR);
  if (!fd) return false;
  if (handle >= fds_.size()) fds_.resize(handle + 1);
  fds_[handle] = std::move(fd);
  tree_.add_handle(handle, tree_.name(name).file);
  return true;
}

bool SystemCalls::close(const Operands& given) {
  if (!has_handle(given[0])) return false;
  fds_[given[0]].reset();
  tree_.remove_handle(given[0]);
  return true;
}

bool SystemCalls::write_open(const Operands& given) {
  return has_handle(given[0]) && write_at(fds_[given[0]].get(), given[1], given[2]);
}

bool SystemCalls::truncate_open(const Operands& given) {
  return has_handle(given[0]) && ::ftruncate(fds_[given[0]].get(), given[1]) == 0;
}

bool SystemCalls::allocate_open(const Operands& given) {
  return has_handle(given[0]) && allocate_at(fds_[given[0]].get(), given[1], given[2], given[3]);
}

bool SystemCalls::sync_open(const Operands& given) {
  return has_handle(given[0]) && ::fsync(fds_[given[0]].get()) == 0;
}

}  // namespace tally::test
