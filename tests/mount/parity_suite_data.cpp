// Calls of the parity suite that read, write and allocate.

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <limits>

#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

Variant on_open(const char* name, int flags, std::function<std::string(int)> act) {
  return {name,
          [=, act = std::move(act)](const Cell& cell) { return with_fd(cell.path, flags, act); }};
}

/// Whether a call that the lower filesystem refuses for the size would clear set-id bits and
/// capabilities: the kernel does that before it asks a FUSE filesystem.
bool would_clear(const std::string& path) {
  struct stat st{};
  const bool has_set_id = ::stat(path.c_str(), &st) == 0 && (st.st_mode & (S_ISUID | S_ISGID)) != 0;
  return has_set_id || ::getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

/// A call with a size that is too large, where it would clear nothing.
std::function<std::string(int)> unless_cleared(std::function<std::string(int)> act) {
  return [act = std::move(act)](int fd) {
    if (would_clear("/proc/self/fd/" + std::to_string(fd))) return std::string("is privileged");
    return act(fd);
  };
}

SystemCall truncate_call() {
  SystemCall call{"truncate", {}};
  for (const off_t size : {off_t{0}, off_t{3}, off_t{7}, off_t{100'000}, off_t{1} << 40, off_t{-1},
                           std::numeric_limits<off_t>::max()}) {
    call.variants.push_back({"to " + std::to_string(size), [=](const Cell& cell) {
                               const bool is_too_large = size > (off_t{1} << 40);
                               if (is_too_large && would_clear(cell.path))
                                 return std::string("is privileged");
                               return told(::truncate(cell.path.c_str(), size));
                             }});
  }
  return call;
}

SystemCall ftruncate_call() {
  const auto to = [](off_t size) { return [=](int fd) { return told(::ftruncate(fd, size)); }; };
  return {"ftruncate",
          {on_open("to 3", O_WRONLY, to(3)), on_open("to 7, its size", O_RDWR, to(7)),
           on_open("to 100000", O_RDWR, to(100'000)), on_open("to -1", O_RDWR, to(-1)),
           on_open("to 2^62", O_RDWR, unless_cleared(to(off_t{1} << 62))),
           on_open("open for reading", O_RDONLY, to(3))}};
}

SystemCall fallocate_call() {
  const auto in = [](int mode, off_t offset, off_t length) {
    return [=](int fd) { return told(::fallocate(fd, mode, offset, length)); };
  };
  return {"posix_fallocate",
          {on_open("posix_fallocate", O_RDWR,
                   [](int fd) { return std::to_string(::posix_fallocate(fd, 5, 9'000)); }),
           on_open("KEEP_SIZE", O_RDWR, in(FALLOC_FL_KEEP_SIZE, 0, 9'000)),
           on_open("PUNCH_HOLE", O_RDWR, in(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3)),
           on_open("ZERO_RANGE", O_RDWR, in(FALLOC_FL_ZERO_RANGE, 2, 10)),
           on_open("nothing", O_RDWR, in(0, 0, 0)),
           on_open("before the beginning", O_RDWR, in(0, -1, 10)),
           on_open("beyond the end of everything", O_RDWR,
                   unless_cleared(in(0, std::numeric_limits<off_t>::max() - 5, 5))),
           on_open("open for reading", O_RDONLY, in(0, 0, 10))}};
}

std::string shared_store(int fd) {
  // Its store would keep them, but the write that a FUSE filesystem gets for it clears them.
  if (::fgetxattr(fd, "security.capability", nullptr, 0) > 0) return "has capabilities";
  void* const memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return told(-1);
  struct stat st{};
  // Where there is no page there is nothing to store to.
  if (::fstat(fd, &st) == 0 && st.st_size > 0 && S_ISREG(st.st_mode))
    *static_cast<char*>(memory) = '!';
  const std::string synced = told(::msync(memory, 4096, MS_SYNC));
  ::munmap(memory, 4096);
  return synced;
}

SystemCall write_call() {
  return {
      "write",
      {on_open("a byte", O_WRONLY, [](int fd) { return told(::write(fd, "x", 1)); }),
       on_open("no byte", O_WRONLY, [](int fd) { return told(::write(fd, "", 0)); }),
       on_open("at the end", O_WRONLY | O_APPEND, [](int fd) { return told(::write(fd, "x", 1)); }),
       on_open("far beyond the end", O_WRONLY,
               [](int fd) { return told(::pwrite(fd, "x", 1, 1'000'000)); }),
       on_open("at 2^62", O_WRONLY,
               unless_cleared([](int fd) { return told(::pwrite(fd, "x", 1, off_t{1} << 62)); })),
       on_open("before the beginning", O_WRONLY,
               [](int fd) { return told(::pwrite(fd, "x", 1, -1)); }),
       on_open("open for reading", O_RDONLY, [](int fd) { return told(::write(fd, "x", 1)); }),
       on_open("of a shared mapping", O_RDWR, shared_store),
       on_open("several pieces", O_WRONLY, [](int fd) {
         char one[] = "one";
         char two[] = "two";
         const struct iovec pieces[] = {{one, 3}, {two, 3}};
         return told(::writev(fd, pieces, 2)) + told(::fsync(fd));
       })}};
}

SystemCall read_call() {
  const auto reading = [](size_t length, off_t offset) {
    return [=](int fd) {
      char buffer[100] = {};
      const std::string got = told(::pread(fd, buffer, length, offset));
      return got + " '" + buffer + "'";
    };
  };
  return {"read",
          {on_open("all", O_RDONLY, reading(99, 0)), on_open("a part", O_RDWR, reading(3, 2)),
           // After another read: the kernel knows the size and may not ask for this one.
           on_open("beyond the end", O_RDONLY,
                   [=](int fd) { return reading(1, 0)(fd) + reading(9, 1'000'000)(fd); }),
           on_open("before the beginning", O_RDONLY, reading(9, -1)),
           on_open("open for writing", O_WRONLY, reading(9, 0)),
           on_open("without moving atime", O_RDONLY | O_NOATIME, reading(99, 0))}};
}

SystemCall lseek_call() {
  const auto to = [](off_t offset, int whence) {
    return [=](int fd) { return told(::lseek(fd, offset, whence)); };
  };
  // Only files: what a position in a directory means is each filesystem's own affair.
  const auto on_file = [](const char* name, std::function<std::string(int)> act) {
    return on_open(name, O_RDONLY, [act = std::move(act)](int fd) {
      struct stat st{};
      if (::fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) return std::string("a directory");
      return act(fd);
    });
  };
  return {"lseek",
          {on_file("SET", to(5, SEEK_SET)), on_file("SET -1", to(-1, SEEK_SET)),
           on_file("END", to(3, SEEK_END)), on_file("END -100", to(-100, SEEK_END)),
           on_file("DATA", to(0, SEEK_DATA)), on_file("DATA beyond", to(1'000'000, SEEK_DATA)),
           on_file("HOLE", to(0, SEEK_HOLE)), on_file("HOLE beyond", to(1'000'000, SEEK_HOLE)),
           on_file("no such whence", to(0, 99))}};
}

SystemCall copy_call() {
  const auto copied = [](const std::string& from, const std::string& to, int to_flags) {
    return with_fd(from, O_RDONLY, [&](int source) {
      return with_fd(to, to_flags, [&](int target) {
        off_t at = 2;
        off_t into = 1;
        return told(::copy_file_range(source, &at, target, &into, 100, 0));
      });
    });
  };
  return {
      "copy_file_range",
      {{"from it", [=](const Cell& cell) { return copied(cell.path, cell.other(), O_WRONLY); },
        true},
       {"to it", [=](const Cell& cell) { return copied(cell.other(), cell.path, O_WRONLY); }, true},
       {"to it, which appends",
        [=](const Cell& cell) { return copied(cell.other(), cell.path, O_WRONLY | O_APPEND); },
        true},
       {"within itself", [=](const Cell& cell) { return copied(cell.path, cell.path, O_RDWR); },
        true}}};
}

SystemCall fsync_call() {
  return {"fsync",
          {on_open("fsync", O_RDONLY, [](int fd) { return told(::fsync(fd)); }),
           on_open("fdatasync after a write", O_WRONLY, [](int fd) {
             const std::string written = told(::write(fd, "y", 1));
             return written + " " + told(::fdatasync(fd));
           })}};
}

}  // namespace

std::vector<SystemCall> data_calls() {
  return {truncate_call(), ftruncate_call(), fallocate_call(), write_call(),
          read_call(),     lseek_call(),     copy_call(),      fsync_call()};
}

}  // namespace tally::test
