#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/mount/audit.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"
#include "tests/skip.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

constexpr int directory_count = 300;
constexpr int files_per_directory = 110;

std::string directory_name(int directory) { return "d" + std::to_string(directory); }

std::string file_name(int directory, int file) {
  return directory_name(directory) + "/f" + std::to_string(file);
}

/// 33,000 files of one byte: every inode in the kernel's cache is one in the daemon's.
void make_files(const MountFolders& folders) {
  for (int d = 0; d < directory_count; ++d) {
    REQUIRE(::mkdir(folders.source(directory_name(d)).c_str(), 0755) == 0);
    for (int f = 0; f < files_per_directory; ++f) {
      write_file(folders.source(file_name(d, f)), std::string(1, static_cast<char>('a' + f % 26)));
    }
  }
}

template <class Action>
int count_files(Action action) {
  int successes = 0;
  for (int d = 0; d < directory_count; ++d) {
    for (int f = 0; f < files_per_directory; ++f)
      successes += action(d, f) ? 1 : 0;
  }
  return successes;
}

constexpr int file_count = directory_count * files_per_directory;

/// Out of the page cache, so that the daemon reads it from the device.
void make_cold(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(::fdatasync(fd.get()) == 0);
  REQUIRE(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED) == 0);
}

UniqueFd open_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(fd);
  return fd;
}

/// How many descriptors a process has open.
std::ptrdiff_t descriptors_of(pid_t process) {
  const std::filesystem::directory_iterator open("/proc/" + std::to_string(process) + "/fd");
  return std::distance(begin(open), end(open));
}

}  // namespace

TEST_CASE("a daemon with 1024 descriptors serves 33,000 cached inodes") {
  if (!can_mount()) return;
  // In memory, where making so many files takes no minutes.
  const MountFolders folders("/dev/shm");
  make_files(folders);
  const Mount mount(folders, {.process = {.descriptors_max = 1024}});

  CHECK(count_files([&](int d, int f) {
          struct stat st{};
          return ::lstat(mount.at(file_name(d, f)).c_str(), &st) == 0 && st.st_size == 1;
        }) == file_count);
  CHECK(count_files([&](int d, int f) {
          return read_file(mount.at(file_name(d, f)))[0] == 'a' + f % 26;
        }) == file_count);
  INFO("inodes whose descriptor was given up are found again after their name has moved");
  REQUIRE(::rename(mount.at("d0").c_str(), mount.at("d1/moved").c_str()) == 0);
  CHECK(read_file(mount.at("d1/moved/f0")) == "a");
  write_file(mount.at("d1/moved/f1"), "grown by this");
  REQUIRE(::rename(mount.at("d1/moved").c_str(), mount.at("d0").c_str()) == 0);
  check_counters(mount);

  CHECK(count_files([&](int d, int f) {
          return ::unlink(mount.at(file_name(d, f)).c_str()) == 0;
        }) == file_count);
  for (int d = 0; d < directory_count; ++d) {
    CHECK(::rmdir(mount.at(directory_name(d)).c_str()) == 0);
  }
  check_counters(mount);
  CHECK(counter(mount.at(), "rentries") == 0);
}

TEST_CASE("a million entries of one directory are listed, cached, changed and audited") {
  if (!can_mount()) return;
  constexpr int count = 1'000'000;
  constexpr int some = 1000;
  struct statvfs room{};
  if (::statvfs("/dev/shm", &room) != 0 || room.f_favail < count + some)
    return skip("/dev/shm has no room for a million files");
  const MountFolders folders("/dev/shm");
  const auto name = [](int number) { return "f" + std::to_string(number); };
  REQUIRE(::mkdir(folders.source("wide").c_str(), 0755) == 0);
  {
    const UniqueFd wide(open_directory(folders.source("wide")));
    for (int i = 0; i < count; ++i)
      REQUIRE(::mknodat(wide.get(), name(i).c_str(), S_IFREG | 0644, 0) == 0);
  }
  const Mount mount(folders,
                    {.process = {.descriptors_max = 1024}, .life_max = std::chrono::seconds(600)});
  CHECK(counter(mount.at("wide"), "files") == count);
  const std::filesystem::directory_iterator listing(mount.at("wide"));
  CHECK(std::distance(begin(listing), end(listing)) == count);

  const UniqueFd wide(open_directory(mount.at("wide")));
  const auto count_some = [&](int first, int last, auto action) {
    int successes = 0;
    for (int i = first; i < last; ++i)
      successes += action(name(i).c_str()) ? 1 : 0;
    return successes;
  };
  CHECK(count_some(0, count, [&](const char* file) {
          struct stat st{};
          return ::fstatat(wide.get(), file, &st, 0) == 0 && st.st_size == 0;
        }) == count);
  CHECK(descriptors_of(mount.daemon().pid()) < 1024);

  const UniqueFd root(open_directory(mount.at()));
  CHECK(count_some(0, some, [&](const char* file) {
          return ::renameat(wide.get(), file, root.get(), file) == 0;
        }) == some);
  CHECK(count_some(some, 2 * some,
                   [&](const char* file) { return ::unlinkat(wide.get(), file, 0) == 0; }) == some);
  CHECK(count_some(count, count + some, [&](const char* file) {
          const UniqueFd fd(::openat(wide.get(), file, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
          return ::write(fd.get(), "xyz", 3) == 3;
        }) == some);
  CHECK(counter(mount.at("wide"), "files") == count - some);
  CHECK(counter(mount.at(), "rbytes") == 3 * some);
  CHECK(audit(mount).at("differences") == 0);
  check_counters(mount);
}

TEST_CASE("files kept open stay usable while many other inodes come and go") {
  if (!can_mount()) return;
  const MountFolders folders("/dev/shm");
  make_files(folders);
  const Mount mount(folders, {.process = {.descriptors_max = 512}});
  std::vector<UniqueFd> held;
  for (int d = 0; d < 100; ++d) {
    held.emplace_back(::open(mount.at(file_name(d, 0)).c_str(), O_RDWR | O_CLOEXEC));
    REQUIRE(held.back().get() >= 0);
    REQUIRE(::unlink(mount.at(file_name(d, 0)).c_str()) == 0);
  }
  CHECK(count_files([&](int d, int f) {
          struct stat st{};
          return ::lstat(mount.at(file_name(d, f)).c_str(), &st) == 0;
        }) == file_count - 100);
  for (const UniqueFd& fd : held) {
    CHECK(::pwrite(fd.get(), "long", 4, 0) == 4);
    struct stat st{};
    CHECK(::fstat(fd.get(), &st) == 0);
    CHECK(st.st_size == 4);
  }
  CHECK(counter(mount.at(), "orphan_bytes") == 400);
  held.clear();
  check_counters(mount);
}

TEST_CASE("files that are written, closed and removed are let go at once") {
  if (!can_mount()) return;
  const MountFolders folders;
  Mount mount(folders);
  for (int i = 0; i < 50; ++i) {
    const std::string path = mount.at("file" + std::to_string(i));
    write_file(path, "its blocks are free when it is removed, however soon");
    REQUIRE(::unlink(path.c_str()) == 0);
  }
  const auto removed_and_open = [&] {
    int count = 0;
    const std::string folder = "/proc/" + std::to_string(mount.daemon().pid()) + "/fd";
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      std::error_code gone;
      const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
      if (target.starts_with(folders.folder()) && target.ends_with(" (deleted)")) ++count;
    }
    return count;
  };
  // The kernel's FORGET follows soon, but nobody waits for it.
  for (int tries = 0; tries < 100 && removed_and_open() != 0; ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(removed_and_open() == 0);
}

TEST_CASE("files that are open and read from the device leave the daemon descriptors of its own") {
  if (!can_mount()) return;
  const MountFolders folders;
  constexpr int cold_count = 200;
  constexpr int other_count = 500;
  for (int i = 0; i < cold_count + other_count; ++i)
    write_file(folders.source(std::to_string(i)),
               std::string(5000, static_cast<char>('a' + i % 26)));
  for (int i = 0; i < cold_count; ++i)
    make_cold(folders.source(std::to_string(i)));
  constexpr int descriptors_max = 512;
  Mount mount(folders, {.process = {.descriptors_max = descriptors_max}});
  for (int i = 0; i < cold_count + other_count; ++i) {
    struct stat st{};
    REQUIRE(::lstat(mount.at(std::to_string(i)).c_str(), &st) == 0);
  }
  std::vector<UniqueFd> held;
  int right = 0;
  for (int i = 0; i < cold_count; ++i) {
    held.emplace_back(::open(mount.at(std::to_string(i)).c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 5000> content{};
    right += ::pread(held.back().get(), content.data(), 5000, 0) == 5000 &&
             content[4999] == 'a' + i % 26;
  }
  CHECK(right == cold_count);
  // Every request thread may need one for a moment.
  CHECK(descriptors_of(mount.daemon().pid()) <= descriptors_max - 16);
}

TEST_CASE("whoever opens all the files it can keeps nobody from looking, listing and removing") {
  if (!can_mount()) return;
  const MountFolders folders;
  REQUIRE(::mkdir(folders.source("directory").c_str(), 0755) == 0);
  for (int file = 0; file < 300; ++file)
    write_file(folders.source("f" + std::to_string(file)), "x");
  const Mount mount(folders, {.process = {.descriptors_max = 256}});
  std::vector<UniqueFd> held;
  std::vector<UniqueFd> directories;
  for (int file = 0; file < 300; ++file) {
    UniqueFd fd(::open(mount.at("f" + std::to_string(file)).c_str(), O_RDWR | O_CLOEXEC));
    if (fd) held.push_back(std::move(fd));
  }
  for (int i = 0; i < 300; ++i) {
    UniqueFd directory(::open(mount.at("directory").c_str(), O_RDONLY | O_CLOEXEC));
    if (directory) directories.push_back(std::move(directory));
  }
  CHECK(held.size() > 64);
  CHECK(held.size() < 200);
  REQUIRE(directories.size() > 8);
  directories.pop_back();

  struct stat st{};
  CHECK(::stat(mount.at("f299").c_str(), &st) == 0);
  std::error_code error;
  const std::filesystem::directory_iterator first(mount.at(), error);
  CHECK_FALSE(error);
  CHECK(std::distance(first, std::filesystem::directory_iterator()) == 301);
  CHECK(::unlink(mount.at("f298").c_str()) == 0);
  CHECK(::mkdir(mount.at("made").c_str(), 0755) == 0);
  CHECK(::rename(mount.at("f297").c_str(), mount.at("made/f297").c_str()) == 0);
  CHECK(read_xattr(mount.at(), "user.tally.rfiles").value() == "299");
  for (const UniqueFd& fd : held) {
    CHECK(::fstat(fd.get(), &st) == 0);
    CHECK(::fchmod(fd.get(), 0600) == 0);
    CHECK(::ftruncate(fd.get(), 7) == 0);
  }
  held.clear();
  directories.clear();
  check_counters(mount);
}
