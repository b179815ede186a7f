#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>

#include <catch2/catch.hpp>

#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

void make_one_of_each(Recorder&) {
  write_file("file", "content");
  ::mkdir("directory", 0755);
  ::symlink("file", "link");
  ::symlink("missing", "dangling");
  ::mkfifo("fifo", 0644);
}

constexpr const char* targets[] = {"file", "directory", "link",       "dangling",
                                   "fifo", "missing",   "file/below", ""};

/// The times of what a call with these flags has touched. Of a symbolic link itself only mtime:
/// following it moves its atime, and when the kernel does that is its own affair.
void record_times(Recorder& recorder, const char* path, int flags) {
  struct stat st{};
  if (recorder.call("fstatat", ::fstatat(AT_FDCWD, path, &st, flags)) != 0) return;
  const auto note = [&](const char* what, const struct timespec& time) {
    recorder.note(what, std::to_string(time.tv_sec) + "." + std::to_string(time.tv_nsec));
  };
  if (!S_ISLNK(st.st_mode)) note("atime", st.st_atim);
  note("mtime", st.st_mtim);
}

}  // namespace

TEST_CASE("chmod sets the native mode on every kind of target") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each(recorder);
    for (const char* target : targets) {
      for (const mode_t mode : {0U, 0644U, 0777U, 01755U, 02755U, 04755U, 07777U}) {
        recorder.call(std::string("chmod ") + target, ::chmod(target, mode));
        recorder.stat(target);
      }
    }
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDONLY));
    recorder.call("fchmod", ::fchmod(fd.get(), 0640));
    recorder.stat("file");
    recorder.call("fchown", ::fchown(fd.get(), 1, 2));
    recorder.stat("file");
  });
}

TEST_CASE("chown sets owner and group and clears set-id bits as natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each(recorder);
    constexpr auto same = static_cast<uid_t>(-1);
    for (const char* target : targets) {
      for (const auto& [user, group] :
           {std::pair(1000U, same), std::pair(same, 1001U), std::pair(same, same),
            std::pair(0U, 0U), std::pair(65534U, 65534U)}) {
        for (const mode_t mode : {06755U, 06644U, 02745U}) {
          ::chmod(target, mode);
          recorder.call(std::string("chown ") + target, ::chown(target, user, group));
          recorder.stat(target);
          recorder.call(std::string("lchown ") + target, ::lchown(target, user, group));
          recorder.stat(target);
        }
      }
    }
  });
}

TEST_CASE("utimensat sets, leaves and refuses times as natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each(recorder);
    const struct timespec times[][2] = {
        {{1'000'000'000, 123'456'789}, {1'500'000'000, 987'654'321}},
        {{1, 1}, {0, UTIME_OMIT}},
        {{0, UTIME_OMIT}, {2, 2}},
        {{0, UTIME_OMIT}, {0, UTIME_OMIT}},
        {{-5, 5}, {4'000'000'000, 7}},
        {{1, 1'000'000'000}, {1, 1}},
        {{1, -3}, {1, 1}}};
    for (const char* target : targets) {
      for (const auto& pair : times) {
        for (const int flags : {0, AT_SYMLINK_NOFOLLOW}) {
          recorder.call(std::string("utimensat ") + target,
                        ::utimensat(AT_FDCWD, target, pair, flags));
          record_times(recorder, target, flags);
        }
      }
    }
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDONLY));
    recorder.call("futimens", ::futimens(fd.get(), times[0]));
    record_times(recorder, "file", 0);
    const struct timespec now[2] = {{3, 3}, {0, UTIME_NOW}};
    const time_t before = ::time(nullptr);
    recorder.call("UTIME_NOW", ::futimens(fd.get(), now));
    struct stat st{};
    recorder.call("fstat", ::fstat(fd.get(), &st));
    recorder.note("atime", st.st_atim.tv_sec);
    recorder.note("mtime is now", st.st_mtim.tv_sec >= before - 1 ? 1 : 0);
    recorder.call("null", ::utimensat(AT_FDCWD, "file", nullptr, 0));
    recorder.call("fstat", ::fstat(fd.get(), &st));
    recorder.note("both are now",
                  st.st_atim.tv_sec >= before - 1 && st.st_mtim.tv_sec >= before - 1 ? 1 : 0);
  });
}

TEST_CASE("writes, truncations and new names move mtime and ctime as natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each(recorder);
    const struct timespec old[2] = {{1000, 1}, {1000, 1}};
    const auto moved = [&](const char* what, const char* target, auto action) {
      ::utimensat(AT_FDCWD, target, old, AT_SYMLINK_NOFOLLOW);
      struct stat before{};
      struct stat after{};
      ::lstat(target, &before);
      ::usleep(20'000);
      action();
      ::lstat(target, &after);
      recorder.note(std::string(what) + " moved mtime",
                    after.st_mtim.tv_sec != before.st_mtim.tv_sec);
      recorder.note(std::string(what) + " moved ctime",
                    after.st_ctim.tv_sec != before.st_ctim.tv_sec ||
                        after.st_ctim.tv_nsec != before.st_ctim.tv_nsec);
    };
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDWR));
    moved("write", "file", [&] { recorder.call("write", ::write(fd.get(), "x", 1)); });
    moved("no bytes", "file", [&] { recorder.call("write", ::write(fd.get(), "", 0)); });
    moved("truncate", "file", [&] { recorder.call("truncate", ::truncate("file", 3)); });
    moved("same size", "file", [&] { recorder.call("ftruncate", ::ftruncate(fd.get(), 3)); });
    moved("chmod", "file", [&] { recorder.call("chmod", ::chmod("file", 0600)); });
    moved("link", "file", [&] { recorder.call("link", ::link("file", "second")); });
    moved("unlink", "file", [&] { recorder.call("unlink", ::unlink("second")); });
    moved("setxattr", "file",
          [&] { recorder.call("setxattr", ::setxattr("file", "user.x", "1", 1, 0)); });
    moved("rename", "file", [&] {
      recorder.call("rename", ::rename("file", "renamed"));
      recorder.call("rename", ::rename("renamed", "file"));
    });
    moved("O_TRUNC", "file", [&] { recorder.fd("open", ::open("file", O_WRONLY | O_TRUNC)); });
    moved("mkdir below", "directory",
          [&] { recorder.call("mkdir", ::mkdir("directory/sub", 0755)); });
    moved("rmdir below", "directory", [&] { recorder.call("rmdir", ::rmdir("directory/sub")); });
  });
}

TEST_CASE("access answers as natively for every kind of target and mode") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each(recorder);
    for (const mode_t mode : {0U, 0400U, 0755U}) {
      ::chmod("file", mode);
      ::chmod("directory", mode);
      for (const char* target : targets) {
        for (const int wanted : {F_OK, R_OK, W_OK, X_OK, R_OK | W_OK | X_OK}) {
          recorder.call(std::string(target) + " " + std::to_string(wanted),
                        ::access(target, wanted));
          recorder.call("effective, not following",
                        ::faccessat(AT_FDCWD, target, wanted, AT_EACCESS | AT_SYMLINK_NOFOLLOW));
        }
      }
    }
  });
}

TEST_CASE("statvfs describes the lower filesystem") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("file", "content");
    for (const char* target : {"file", ".", "missing"}) {
      struct statvfs filesystem{};
      if (recorder.call(target, ::statvfs(target, &filesystem)) != 0) continue;
      recorder.note("block size", static_cast<int64_t>(filesystem.f_bsize));
      recorder.note("fragment size", static_cast<int64_t>(filesystem.f_frsize));
      recorder.note("blocks", static_cast<int64_t>(filesystem.f_blocks));
      recorder.note("inodes", static_cast<int64_t>(filesystem.f_files));
      recorder.note("longest name", static_cast<int64_t>(filesystem.f_namemax));
      recorder.note("some are free", filesystem.f_bfree > 0 && filesystem.f_ffree > 0);
    }
  });
}

TEST_CASE("extended attributes of files live, list and fail as natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each(recorder);
    const std::string large(3000, 'v');
    const std::string too_large(70'000, 'v');
    char buffer[4096];
    for (const char* target : targets) {
      for (const char* name : {"user.plain", "trusted.for-root", "security.own", "unknown.space",
                               "user.", "no-dot", "system.unknown"}) {
        const auto set = [&](const std::string& value, int flags) {
          recorder.call(std::string("set ") + name + " on " + target,
                        ::lsetxattr(target, name, value.data(), value.size(), flags));
        };
        set("early", XATTR_REPLACE);
        set("first", XATTR_CREATE);
        set("again", XATTR_CREATE);
        set("", 0);
        set(large, XATTR_REPLACE);
        set(too_large, 0);
        recorder.call("size", ::lgetxattr(target, name, nullptr, 0));
        recorder.call("too small", ::lgetxattr(target, name, buffer, 10));
        const long got = recorder.call("get", ::lgetxattr(target, name, buffer, sizeof buffer));
        if (got > 0) recorder.note("value", std::string(buffer, static_cast<size_t>(got)));
        recorder.call("remove", ::lremovexattr(target, name));
        recorder.call("remove again", ::lremovexattr(target, name));
      }
      ::lsetxattr(target, "user.one", "1", 1, 0);
      ::lsetxattr(target, "user.two", "22", 2, 0);
      recorder.call("list size", ::llistxattr(target, nullptr, 0));
      recorder.call("list too small", ::llistxattr(target, buffer, 4));
      const long got = recorder.call("list", ::llistxattr(target, buffer, sizeof buffer));
      if (got > 0) {
        std::replace(buffer, buffer + got, '\0', ' ');
        recorder.note("names", std::string(buffer, static_cast<size_t>(got)));
      }
    }
    recorder.call("following", ::setxattr("link", "user.through", "link", 4, 0));
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDONLY));
    recorder.call("fsetxattr", ::fsetxattr(fd.get(), "user.fd", "fd", 2, 0));
    recorder.call("fgetxattr", ::fgetxattr(fd.get(), "user.through", buffer, sizeof buffer));
    recorder.call("fremovexattr", ::fremovexattr(fd.get(), "user.through"));
  });
}

TEST_CASE("statx tells the birth time that the lower filesystem has, and sizes as stat does") {
  if (!can_mount()) return;
  const MountFolders folders;
  REQUIRE(::mkdir(folders.source("directory").c_str(), 0755) == 0);
  write_file(folders.source("directory/file"), "content");
  const Mount mount(folders);
  for (const char* path : {"directory", "directory/file"}) {
    INFO(path);
    struct statx lower{};
    struct statx seen{};
    constexpr unsigned mask = STATX_BASIC_STATS | STATX_BTIME;
    REQUIRE(::statx(AT_FDCWD, mount.lower(path).c_str(), AT_SYMLINK_NOFOLLOW, mask, &lower) == 0);
    REQUIRE(::statx(AT_FDCWD, mount.at(path).c_str(), AT_SYMLINK_NOFOLLOW, mask, &seen) == 0);
    CHECK((seen.stx_mask & STATX_BTIME) == (lower.stx_mask & STATX_BTIME));
    CHECK(seen.stx_btime.tv_sec == lower.stx_btime.tv_sec);
    CHECK(seen.stx_btime.tv_nsec == lower.stx_btime.tv_nsec);
    CHECK(seen.stx_ino == lower.stx_ino);
    CHECK(seen.stx_mode == lower.stx_mode);
    CHECK(seen.stx_nlink == lower.stx_nlink);
    CHECK(seen.stx_blocks == lower.stx_blocks);
    CHECK(seen.stx_ctime.tv_nsec == lower.stx_ctime.tv_nsec);
    CHECK(seen.stx_size == 7);  // the file's, and the directory's total
  }
}
