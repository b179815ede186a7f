// Calls of the parity suite that only ask: stat, statx, access, readlink, statfs.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

std::string told_mode(long result, const struct stat& st) {
  if (result != 0) return told(-1);
  char text[100];
  ::snprintf(text, sizeof text, "mode %o %u:%u links %lu rdev %lx", st.st_mode, st.st_uid,
             st.st_gid, static_cast<unsigned long>(st.st_nlink),
             static_cast<unsigned long>(st.st_rdev));
  if (S_ISDIR(st.st_mode)) return text;
  return text + (" size " + std::to_string(st.st_size));
}

Variant stating(const char* name, int flags) {
  return {name, [=](const Cell& cell) {
            struct stat st{};
            return told_mode(::fstatat(AT_FDCWD, cell.path.c_str(), &st, flags), st);
          }};
}

SystemCall stat_call() {
  return {"stat",
          {stating("stat", 0),
           stating("lstat", AT_SYMLINK_NOFOLLOW),
           {"fstat of O_PATH", [](const Cell& cell) {
              return with_fd(cell.path, O_PATH, [](int fd) {
                struct stat st{};
                return told_mode(::fstat(fd, &st), st);
              });
            }}}};
}

SystemCall statx_call() {
  const auto asking = [](int flags) {
    return [=](const Cell& cell) {
      struct statx stx{};
      // The kernel caches no birth time for FUSE.
      const unsigned mask =
          STATX_BASIC_STATS | (flags & AT_STATX_DONT_SYNC ? 0U : unsigned{STATX_BTIME});
      if (::statx(AT_FDCWD, cell.path.c_str(), flags, mask, &stx) != 0) return told(-1);
      std::string seen = "mode " + std::to_string(stx.stx_mode) + " mask " +
                         std::to_string(stx.stx_mask & mask) + " block size " +
                         std::to_string(stx.stx_blksize);
      if (!S_ISDIR(stx.stx_mode)) seen += " size " + std::to_string(stx.stx_size);
      return seen;
    };
  };
  return {"statx",
          {{"following", asking(0)},
           {"not following", asking(AT_SYMLINK_NOFOLLOW)},
           {"synchronised", asking(AT_STATX_FORCE_SYNC)},
           {"as it is cached", asking(AT_STATX_DONT_SYNC)}}};
}

SystemCall access_call() {
  SystemCall call{"access", {}};
  for (const int mode : {F_OK, R_OK, W_OK, X_OK, R_OK | W_OK | X_OK}) {
    call.variants.push_back({"access " + std::to_string(mode), [=](const Cell& cell) {
                               return told(::access(cell.path.c_str(), mode));
                             }});
    call.variants.push_back({"effective " + std::to_string(mode), [=](const Cell& cell) {
                               return told(
                                   ::faccessat(AT_FDCWD, cell.path.c_str(), mode, AT_EACCESS));
                             }});
  }
  call.variants.push_back(
      {"no such mode", [](const Cell& cell) { return told(::access(cell.path.c_str(), 0100)); }});
  return call;
}

SystemCall readlink_call() {
  const auto reading = [](size_t room) {
    return [=](const Cell& cell) {
      char target[5000] = {};
      const std::string length = told(::readlink(cell.path.c_str(), target, room));
      return length + " " + target;
    };
  };
  return {"readlink", {{"all", reading(4999)}, {"a part", reading(1)}}};
}

SystemCall statvfs_call() {
  return {"statvfs", {{"statvfs", [](const Cell& cell) {
                         struct statvfs filesystem{};
                         if (::statvfs(cell.path.c_str(), &filesystem) != 0) return told(-1);
                         return std::to_string(filesystem.f_bsize) + " " +
                                std::to_string(filesystem.f_frsize) + " " +
                                std::to_string(filesystem.f_blocks) + " " +
                                std::to_string(filesystem.f_files) + " " +
                                std::to_string(filesystem.f_namemax);
                       }}}};
}

}  // namespace

std::vector<SystemCall> query_calls() {
  return {stat_call(), statx_call(), access_call(), readlink_call(), statvfs_call()};
}

}  // namespace tally::test
