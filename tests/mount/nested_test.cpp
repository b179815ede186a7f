// Filesystems that are mounted below the source, subvolumes, bind mounts; and `one_file_system`.

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/mount/audit.hpp"
#include "tests/mount/child_process.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/lower_filesystem.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/mount_guard.hpp"

using namespace tally::test;
using namespace std::chrono_literals;

namespace {

void make_directory(const std::string& path) { REQUIRE(::mkdir(path.c_str(), 0755) == 0); }

void write_file(const std::string& path, std::size_t size_bytes) {
  std::ofstream file(path);
  file << std::string(size_bytes, 'f') << std::flush;
  REQUIRE(file.good());
}

/// A directory, a file in it, and a file with two names.
void fill(const std::string& directory) {
  make_directory(directory + "/below");
  write_file(directory + "/below/file", 10'000);
  write_file(directory + "/linked", 20'000);
  REQUIRE(::link((directory + "/linked").c_str(), (directory + "/below/link").c_str()) == 0);
}

struct stat stat_of(const std::string& path) {
  struct stat st{};
  INFO(path);
  REQUIRE(::lstat(path.c_str(), &st) == 0);
  return st;
}

int errno_of(int result) { return result == 0 ? 0 : errno; }

bool can_nest() {
  return can_mount() && can_mount_lower(LowerKind::ext4) && can_mount_lower(LowerKind::xfs) &&
         can_mount_lower(LowerKind::btrfs) && can_mount_lower(LowerKind::tmpfs);
}

/// A source with an XFS, a tmpfs in that, and a btrfs with a subvolume and its snapshot below; all
/// are filled, and so is what they cover.
class Nested {
 public:
  Nested() {
    for (const char* place : {"plain", "xfs", "btrfs"}) {
      make_directory(folders.source(place));
      fill(folders.source(place));
    }
    mounts_.emplace_back(std::make_unique<LowerFilesystem>(
        LowerKind::xfs, LowerFilesystem::Settings{.mountpoint = folders.source("xfs")}));
    make_directory(folders.source("xfs/tmpfs"));
    mounts_.emplace_back(std::make_unique<LowerFilesystem>(
        LowerKind::tmpfs, LowerFilesystem::Settings{.mountpoint = folders.source("xfs/tmpfs")}));
    mounts_.emplace_back(std::make_unique<LowerFilesystem>(
        LowerKind::btrfs, LowerFilesystem::Settings{.mountpoint = folders.source("btrfs")}));
    const std::string subvolume = folders.source("btrfs/subvolume");
    REQUIRE(run({"btrfs", "subvolume", "create", subvolume}).status == 0);
    for (const char* place : {"xfs", "xfs/tmpfs", "btrfs", "btrfs/subvolume"})
      fill(folders.source(place));
    const std::string snapshot = folders.source("btrfs/snapshot");
    REQUIRE(run({"btrfs", "subvolume", "snapshot", subvolume, snapshot}).status == 0);
  }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;
  ~Nested() {
    while (!mounts_.empty())
      mounts_.pop_back();
  }

  MountFolders folders;

 private:
  std::vector<std::unique_ptr<LowerFilesystem>> mounts_;
};

/// What a filesystem, or a subvolume, of its own is mounted on.
constexpr const char* nested_places[] = {"xfs", "xfs/tmpfs", "btrfs", "btrfs/subvolume",
                                         "btrfs/snapshot"};

/// The entries of a directory as readdir(3) gives them, with their numbers; without "." and "..".
std::map<std::string, ino_t> list(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(path.c_str()), ::closedir);
  REQUIRE(stream != nullptr);
  std::map<std::string, ino_t> entries;
  while (const dirent* entry = ::readdir(stream.get()))
    entries[entry->d_name] = entry->d_ino;
  entries.erase(".");
  entries.erase("..");
  return entries;
}

int64_t du(const std::vector<std::string>& options, const std::string& path) {
  std::vector<std::string> command{"du", "-s", "-B1"};
  command.insert(command.end(), options.begin(), options.end());
  command.push_back(path);
  const Finished finished = run(command);
  REQUIRE(finished.status == 0);
  return std::stoll(finished.output);
}

}  // namespace

TEST_CASE("filesystems and subvolumes mounted below are served and counted as du does") {
  if (!can_nest()) return;
  const Nested nested;
  const Mount mount(nested.folders, {.options = "settle=1"});
  check_counters(mount, true);
  CHECK(counter(mount.at(), "rdisk") == du({}, nested.folders.source()));

  for (const char* place : nested_places) {
    INFO(place);
    const std::string at = mount.at(place);
    write_file(at + "/new", 30'000);
    make_directory(at + "/made");
    write_file(at + "/made/inside", 5'000);
    REQUIRE(::rename((at + "/new").c_str(), (at + "/below/moved").c_str()) == 0);
    REQUIRE(::link((at + "/linked").c_str(), (at + "/made/third").c_str()) == 0);
    REQUIRE(::unlink((at + "/below/file").c_str()) == 0);
    CHECK(stat_of(nested.folders.source(place) + std::string("/below/moved")).st_size == 30'000);
  }
  check_counters(mount, true);
  CHECK(counter(mount.at(), "rdisk") == du({}, nested.folders.source()));
}

TEST_CASE("a file below that is dirty when it is scanned counts with the blocks it is written to") {
  if (!can_nest()) return;
  const MountFolders folders;
  make_directory(folders.source("btrfs"));
  const LowerFilesystem lower(
      LowerKind::btrfs, {.mount_options = "compress=zstd", .mountpoint = folders.source("btrfs")});
  write_file(folders.source("btrfs/zeros"), 8 << 20);
  const std::string scan = GENERATE("scan=background", "scan=wait");
  INFO(scan);
  const Mount mount(folders, {.options = scan});
  const int64_t counted = counter(mount.at(), "rdisk");
  REQUIRE(run({"sync", "-f", folders.source("btrfs/zeros")}).status == 0);
  CHECK(counted == du({}, folders.source()));
}

TEST_CASE("every inode of the filesystems below has a number of its own") {
  if (!can_nest()) return;
  const Nested nested;
  const Mount mount(nested.folders);
  std::map<ino_t, std::pair<dev_t, ino_t>> seen;
  std::set<std::pair<dev_t, ino_t>> lower;
  std::set<ino_t> lower_numbers;
  const std::size_t root_length = mount.at().size() + 1;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(mount.at())) {
    const std::string path = entry.path().string();
    INFO(path);
    const struct stat shown = stat_of(path);
    const struct stat below = stat_of(nested.folders.source(path.substr(root_length)));
    const auto [known, is_new] = seen.try_emplace(shown.st_ino, below.st_dev, below.st_ino);
    CHECK(known->second == std::pair(below.st_dev, below.st_ino));
    CHECK(shown.st_dev == stat_of(mount.at()).st_dev);
    lower.emplace(below.st_dev, below.st_ino);
    lower_numbers.insert(below.st_ino);
    if (entry.is_directory())
      for (const auto& [name, number] : list(path)) {
        // What the mount covers, or what btrfs says instead, is what a plain readdir knows.
        const bool is_root =
            below.st_dev !=
            stat_of(nested.folders.source(path.substr(root_length)) + "/" + name).st_dev;
        if (!is_root) CHECK(number == stat_of(path + "/" + name).st_ino);
      }
  }
  CHECK(seen.size() == lower.size());
  CHECK(lower_numbers.size() < lower.size());  // natively they do collide
}

TEST_CASE("between the filesystems below nothing is renamed or linked") {
  if (!can_nest()) return;
  const Nested nested;
  const Mount mount(nested.folders);
  std::vector<std::string> places(std::begin(nested_places), std::end(nested_places));
  places.emplace_back("plain");
  for (const std::string& from : places)
    for (const std::string& to : places) {
      if (from == to) continue;
      INFO(from << " to " << to);
      const std::string file = mount.at(from) + "/linked";
      const std::string directory = mount.at(from) + "/below";
      const std::string target = mount.at(to) + "/target";
      CHECK(errno_of(::rename(file.c_str(), target.c_str())) == EXDEV);
      CHECK(errno_of(::rename(directory.c_str(), target.c_str())) == EXDEV);
      CHECK(errno_of(::link(file.c_str(), target.c_str())) == EXDEV);
      CHECK(errno_of(::renameat2(AT_FDCWD, file.c_str(), AT_FDCWD,
                                 (mount.at(to) + "/linked").c_str(), RENAME_EXCHANGE)) == EXDEV);
    }
  check_counters(mount);
}

TEST_CASE(
    "what something is mounted on can't be removed or renamed and statfs is that of the mount") {
  if (!can_nest()) return;
  const Nested nested;
  const Mount mount(nested.folders);
  for (const char* place : {"xfs", "xfs/tmpfs", "btrfs"}) {
    INFO(place);
    CHECK(errno_of(::rmdir(mount.at(place).c_str())) == EBUSY);
    CHECK(errno_of(::rename(mount.at(place).c_str(), (mount.at(place) + "2").c_str())) == EBUSY);
    struct statvfs shown{};
    struct statvfs below{};
    REQUIRE(::statvfs((mount.at(place) + "/below").c_str(), &shown) == 0);
    REQUIRE(::statvfs(nested.folders.source(place).c_str(), &below) == 0);
    CHECK(shown.f_blocks == below.f_blocks);
    CHECK(shown.f_files == below.f_files);
    CHECK(shown.f_bsize == below.f_bsize);
  }
  check_counters(mount);
}

TEST_CASE("what a mount below forbids to setuid programs and devices stays forbidden") {
  if (!can_mount() || !can_mount_lower(LowerKind::tmpfs)) return;
  const MountFolders folders;
  for (const char* options : {"nosuid,nodev", "suid,dev"}) {
    INFO(options);
    const bool forbids = std::string(options) == "nosuid,nodev";
    const std::string place = folders.source(forbids ? "closed" : "open");
    make_directory(place);
    const LowerFilesystem nested(LowerKind::tmpfs, {.mount_options = options, .mountpoint = place});
    write_file(place + "/program", 10);
    REQUIRE(::chmod((place + "/program").c_str(), 06755) == 0);
    const unsigned char capability[20] = {0, 0, 0, 2, 1};  // struct vfs_cap_data, revision 2
    REQUIRE(::setxattr((place + "/program").c_str(), "security.capability", capability,
                       sizeof capability, 0) == 0);
    REQUIRE(::mknod((place + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
    const Mount mount(folders);
    const std::string at = mount.at(forbids ? "closed" : "open");
    CHECK(stat_of(at + "/program").st_mode == (S_IFREG | (forbids ? 0755 : 06755)));
    CHECK(read_xattr(at + "/program", "security.capability").has_value() == !forbids);
    const tally::UniqueFd device(::open((at + "/null").c_str(), O_WRONLY | O_CLOEXEC));
    CHECK(static_cast<bool>(device) == !forbids);
  }
}

TEST_CASE("what a second mount of the source's own filesystem forbids stays forbidden there") {
  if (!can_mount()) return;
  const MountFolders folders;
  for (const char* place : {"open", "closed"}) {
    const std::string path = folders.source(place);
    make_directory(path);
    write_file(path + "/program", 10);
    REQUIRE(::chmod((path + "/program").c_str(), 04755) == 0);
    REQUIRE(::mknod((path + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
  }
  const std::string closed = folders.source("closed");
  REQUIRE(::mount(closed.c_str(), closed.c_str(), nullptr, MS_BIND, nullptr) == 0);
  const MountGuard guard(closed);
  REQUIRE(::mount(nullptr, closed.c_str(), nullptr,
                  MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_RDONLY, nullptr) == 0);
  // So few descriptors that each is closed before long, and opened again by its handle.
  const Mount mount(folders, {.process = {.descriptors_max = 160}});
  const tally::UniqueFd inside(::open(mount.at("closed").c_str(), O_PATH | O_CLOEXEC));
  make_directory(mount.at("many"));
  for (int i = 0; i < 500; ++i)
    write_file(mount.at("many/" + std::to_string(i)), 1);
  CHECK(stat_of(mount.at("closed/program")).st_mode == (S_IFREG | 0755));
  CHECK(stat_of(mount.at("open/program")).st_mode == (S_IFREG | 04755));
  const tally::UniqueFd device(::open(mount.at("closed/null").c_str(), O_WRONLY | O_CLOEXEC));
  CHECK_FALSE(device);
  CHECK(::mkdirat(inside.get(), "new", 0755) == -1);
  CHECK(errno == EROFS);
}

TEST_CASE("the mount itself, where it is mounted below its own source, is left out") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_directory(folders.source("inside"));
  fill(folders.source("inside"));
  const Mount mount(folders, {.life_max = 60s});
  REQUIRE(::mount(mount.at().c_str(), folders.source("inside").c_str(), nullptr, MS_BIND,
                  nullptr) == 0);
  const MountGuard guard(folders.source("inside"));
  std::this_thread::sleep_for(1100ms);  // the kernel may remember a name for a second
  struct stat st{};
  CHECK(::stat(mount.at("inside").c_str(), &st) == -1);
  CHECK(errno == EXDEV);
  audit(mount);
  CHECK(list(mount.at()).size() == 1);
  write_file(mount.at("beside"), 10);
  CHECK(mount.log().find("below its own source") != std::string::npos);
}

TEST_CASE("what can't be read for a time stays counted, and suspect, and is found again") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_directory(folders.source("dead"));
  make_directory(folders.source("alive"));
  fill(folders.source("alive"));
  fill(folders.native());
  ChildProcess below({PATH_FILESYSTEM_BINARY, folders.native(), folders.source("dead")});
  wait_for_mount(folders.source("dead"), below);
  const MountGuard guard(folders.source("dead"));
  const Mount mount(folders);
  CHECK(counter(mount.at(), "rbytes") == 60'000);
  below.signal(SIGKILL);
  REQUIRE(below.wait(10s));
  audit(mount);
  CHECK(counter(mount.at(), "rbytes") == 60'000);
  CHECK(read_xattr(mount.at(), "user.tally.state").value() == "suspect");
  CHECK(read_xattr(mount.at("alive"), "user.tally.state").value() == "exact");
}

TEST_CASE("a mount below that appears or goes while the source is served is counted again") {
  if (!can_nest()) return;
  const MountFolders folders;
  make_directory(folders.source("place"));
  fill(folders.source("place"));
  const Mount mount(folders);
  {
    const LowerFilesystem appeared(LowerKind::tmpfs, {.mountpoint = folders.source("place")});
    write_file(appeared.path() + "/first", 50'000);
    audit(mount);
    check_healed(mount);
    write_file(mount.at("place/second"), 60'000);
    CHECK(counter(mount.at(), "rbytes") == 110'000);
    // What is served of it is in use.
    CHECK(::umount2(appeared.path().c_str(), MNT_DETACH) == 0);
  }
  audit(mount);
  std::this_thread::sleep_for(1100ms);  // the kernel may remember a name for a second
  check_healed(mount);
  CHECK(counter(mount.at(), "rbytes") == 30'000);
}

TEST_CASE(
    "a directory that a bind mount shows once more is served in both places and counted once") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_directory(folders.source("real"));
  make_directory(folders.source("real/inner"));
  fill(folders.source("real/inner"));
  make_directory(folders.source("bound"));
  MountGuard bound = bind_mount(folders.source("real/inner"), folders.source("bound"));
  {
    const Mount mount(folders);
    CHECK(counter(mount.at(), "rbytes") == 30'000);
    CHECK(list(mount.at("bound")).size() == 2);
    CHECK(list(mount.at("real/inner")).size() == 2);
    write_file(mount.at("bound/new"), 1'000);
    CHECK(counter(mount.at(), "rbytes") == 31'000);
    CHECK(stat_of(mount.at("real/inner/new")).st_size == 1'000);
    write_file(mount.at("real/inner/below/more"), 2'000);
    CHECK(counter(mount.at(), "rbytes") == 33'000);
    REQUIRE(::unlink(mount.at("bound/below/more").c_str()) == 0);
    CHECK(counter(mount.at(), "rbytes") == 31'000);
    CHECK(counter(mount.at(), "rdisk") ==
          du({}, folders.source("real")) + 512 * (stat_of(folders.source()).st_blocks));
    CHECK(errno_of(::rename(mount.at("bound/new").c_str(), mount.at("real/x").c_str())) == EXDEV);
    CHECK(audit(mount).at("differences") == 0);
    CHECK(read_xattr(mount.at(), "user.tally.state").value() == "exact");
    CHECK(counter(mount.at(), "rbytes") == 31'000);
  }
}

TEST_CASE("one_file_system shows what mounts cover and leaves out subvolumes") {
  if (!can_nest()) return;
  const std::string scan = GENERATE("scan=wait", "scan=background");
  const Nested nested;
  const Mount mount(nested.folders, {.options = "one_file_system," + scan});
  CHECK(counter(mount.at(), "rfiles") == 3 * 2);
  CHECK(counter(mount.at(), "rbytes") == 3 * 30'000);
  CHECK(stat_of(mount.at("btrfs/below/file")).st_size == 10'000);
  CHECK(errno_of(::access(mount.at("btrfs/subvolume").c_str(), F_OK)) == ENOENT);
  write_file(mount.at("btrfs/new"), 1'000);
  CHECK(counter(mount.at("btrfs"), "rbytes") == 31'000);
  CHECK(errno_of(::access(nested.folders.source("btrfs/new").c_str(), F_OK)) == ENOENT);
  const std::string said = "one_file_system: other filesystems are left out, first ";
  const std::string log = mount.log();
  INFO(log);
  const std::size_t first = log.find(said + "xfs\n");
  CHECK(first != std::string::npos);
  CHECK(log.find(said, first + 1) == std::string::npos);
}

TEST_CASE("one_file_system leaves out subvolumes where they are in the source's own filesystem") {
  if (!can_mount() || !can_mount_lower(LowerKind::btrfs)) return;
  const std::string scan = GENERATE("scan=wait", "scan=background");
  const LowerFilesystem lower(LowerKind::btrfs);
  const MountFolders folders(lower.path());
  fill(folders.source());
  const std::string subvolume = folders.source("below/subvolume");
  REQUIRE(run({"btrfs", "subvolume", "create", subvolume}).status == 0);
  fill(subvolume);
  const Mount mount(folders, {.options = "one_file_system," + scan});
  CHECK(counter(mount.at(), "rbytes") == 30'000);
  CHECK(counter(mount.at("below"), "entries") == 2);
  for (int round = 0; round < 2; ++round) {  // with attributes, and without
    const auto listed = list(mount.at("below"));
    CHECK(listed.size() == 2);
    CHECK(listed.count("subvolume") == 0);
  }
  CHECK(errno_of(::access(mount.at("below/subvolume").c_str(), F_OK)) == EXDEV);
  CHECK(errno_of(::mkdir(mount.at("below/subvolume").c_str(), 0755)) == EXDEV);
  CHECK(errno_of(::rename(mount.at("linked").c_str(), mount.at("below/subvolume").c_str())) ==
        EXDEV);
  write_file(mount.at("below/new"), 1'000);
  CHECK(counter(mount.at(), "rbytes") == 31'000);
  CHECK(counter(mount.at(), "rdisk") == du({"-x"}, folders.source()));
  CHECK(audit(mount).at("differences") == 0);
  CHECK(read_xattr(mount.at(), "user.tally.state").value() == "exact");
  CHECK(counter(mount.at(), "rbytes") == 31'000);
  const std::string log = mount.log();
  INFO(log);
  CHECK(log.find("left out, first below/subvolume\n") != std::string::npos);
  CHECK(log.find("left out") == log.rfind("left out"));
}
