#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;
using namespace std::chrono_literals;

TEST_CASE("SIGTERM and SIGINT end the daemon cleanly and take the mount away") {
  if (!can_mount()) return;
  for (const int signal : {SIGTERM, SIGINT}) {
    INFO("signal " << signal);
    const MountFolders folders;
    Mount mount(folders);
    write_file(mount.at("file"), "content");
    mount.daemon().signal(signal);
    mount.expect_clean_end();
    CHECK(read_file(folders.source("file")) == "content");
  }
}

TEST_CASE("umount and fusermount3 -u end the daemon cleanly") {
  if (!can_mount() || !has_programs({"umount", "fusermount3"})) return;
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"umount"}, {"fusermount3", "-u"}}) {
    INFO(command[0]);
    const MountFolders folders;
    Mount mount(folders);
    write_file(mount.at("file"), "content");
    std::vector<std::string> full = command;
    full.push_back(folders.mountpoint());
    const Finished finished = run(full);
    INFO(finished.output);
    CHECK(finished.status == 0);
    mount.expect_clean_end();
  }
}

TEST_CASE("SIGTERM in the middle of traffic ends cleanly and loses nothing already written") {
  if (!can_mount()) return;
  const MountFolders folders;
  Mount mount(folders);
  int written = 0;
  std::thread writer([&] {
    for (;; ++written) {
      const UniqueFd fd(::open(mount.at("file" + std::to_string(written)).c_str(),
                               O_WRONLY | O_CREAT | O_EXCL, 0644));
      if (!fd || ::write(fd.get(), "content", 7) != 7) return;
      if (!is_fuse_mount(folders.mountpoint())) return;
    }
  });
  std::this_thread::sleep_for(200ms);
  mount.daemon().signal(SIGTERM);
  mount.expect_clean_end();
  writer.join();
  CHECK(written > 0);
  for (int i = 0; i < written; ++i) {
    const std::string name = "file" + std::to_string(i);
    if (std::filesystem::exists(folders.mountpoint(name))) continue;
    CHECK(read_file(folders.source(name)) == "content");
  }
}

TEST_CASE("SIGTERM the moment that the mount is made leaves no dead mount") {
  if (!can_mount() || !has_programs({"strace"})) return;
  const MountFolders folders;
  const auto command = injected_command("mount", "mount:signal=SIGTERM",
                                        {"-f", folders.source(), folders.mountpoint()});
  const Finished finished = run(command);
  INFO(finished.output);
  CHECK(finished.status == 1);
  CHECK(finished.output.find("ended before it was live") != std::string::npos);
  CHECK(::umount2(folders.mountpoint().c_str(), MNT_DETACH) == -1);
}

TEST_CASE("the end of the daemon does not wait for a filesystem that is slow to write out") {
  if (!can_mount() || !has_programs({"strace"})) return;
  const MountFolders folders;
  ChildProcess daemon(injected_command("syncfs", "syncfs:delay_enter=8000000",
                                       {"-f", folders.source(), folders.mountpoint()}));
  wait_for_mount(folders.mountpoint(), daemon);
  std::this_thread::sleep_for(500ms);
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(::umount2(folders.mountpoint().c_str(), MNT_DETACH) == 0);
  run({"ls", folders.mountpoint()});
  CHECK(std::chrono::steady_clock::now() - start < 5s);
  CHECK(daemon.wait(30s) == 0);
}

TEST_CASE("a mount over its own source serves and counts what lies below it") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::mixed, 21, 300);
  Mount mount(folders, {.over_itself = true});
  check_counters(mount);
  write_file(mount.at("new"), std::string(5000, 'x'));
  REQUIRE(::mkdir(mount.at("new directory").c_str(), 0755) == 0);
  check_counters(mount);
  mount.unmount();
  CHECK(read_file(folders.source("new")).size() == 5000);
}

TEST_CASE("in the background the parent returns 0 once the mount is live") {
  if (!can_mount()) return;
  const MountFolders folders;
  write_file(folders.source("file"), std::string(777, 'x'));
  const Finished started =
      run(tallyfs_command({"-o", "scan=wait", folders.source(), folders.mountpoint()}), "", 30s);
  INFO(started.output);
  CHECK(started.status == 0);
  CHECK(is_fuse_mount(folders.mountpoint()));
  if (is_fuse_mount(folders.mountpoint())) {
    CHECK(counter(folders.mountpoint(), "rbytes") == 777);
    CHECK(::umount2(folders.mountpoint().c_str(), 0) == 0);
  }
}

TEST_CASE("in the background a daemon writes nothing to its terminal's files after it is live") {
  if (!can_mount()) return;
  const MountFolders folders;
  ChildProcess parent(tallyfs_command({folders.source(), folders.mountpoint()}));
  REQUIRE(parent.wait(30s) == std::optional<int>(0));
  const std::string before = parent.output();
  write_file(folders.mountpoint("file"), "content");
  REQUIRE(::umount2(folders.mountpoint().c_str(), 0) == 0);
  CHECK(parent.output() == before);
}

TEST_CASE("ro refuses every change and still counts") {
  if (!can_mount()) return;
  const MountFolders folders;
  write_file(folders.source("file"), "content");
  const Mount mount(folders, {.options = "ro"});
  CHECK(::open(mount.at("file").c_str(), O_WRONLY) == -1);
  CHECK(errno == EROFS);
  CHECK(::mkdir(mount.at("directory").c_str(), 0755) == -1);
  CHECK(errno == EROFS);
  CHECK(::unlink(mount.at("file").c_str()) == -1);
  CHECK(errno == EROFS);
  CHECK(read_file(mount.at("file")) == "content");
  check_counters(mount);
}

TEST_CASE(
    "a source with more directories than max_dirs is mounted and says that totals are short") {
  if (!can_mount()) return;
  const MountFolders folders;
  for (int i = 0; i < 20; ++i)
    REQUIRE(::mkdir(folders.source("d" + std::to_string(i)).c_str(), 0755) == 0);
  const Mount mount(folders, {.options = GENERATE("max_dirs=10", "max_dirs=10,scan=wait")});
  CHECK(mount.log().find("larger -o max_dirs") != std::string::npos);
  CHECK(mount.log().find("suspect totals") != std::string::npos);
  CHECK(read_xattr(mount.at(), "user.tally.state").value() == "suspect");
}

TEST_CASE("deep below many directories one without room costs a scan no more than its way down") {
  if (!can_mount()) return;
  const MountFolders folders;
  std::string path = folders.source();
  for (int depth = 0; depth < 60; ++depth)
    REQUIRE(::mkdir((path += "/d").c_str(), 0755) == 0);
  const Mount mount(folders, {.options = "max_dirs=50", .life_max = 60s});
  CHECK(read_xattr(mount.at(), "user.tally.state").value() == "suspect");
  CHECK(counter(mount.at(), "rsubdirs") == 49);
}

TEST_CASE("max_dirs refuses the directory that is too much, with ENOSPC, and nothing else") {
  if (!can_mount()) return;
  const MountFolders folders;
  Mount mount(folders, {.options = "max_dirs=64"});
  int made = 0;
  while (made < 200 && ::mkdir(mount.at("d" + std::to_string(made)).c_str(), 0755) == 0)
    ++made;
  CHECK(errno == ENOSPC);
  CHECK(made > 32);
  CHECK(made < 200);
  CHECK_FALSE(std::filesystem::exists(folders.source("d" + std::to_string(made))));
  write_file(mount.at("d0/file"), "still possible");
  check_counters(mount);
  REQUIRE(::rmdir(mount.at("d1").c_str()) == 0);
  // The node comes back when the kernel has forgotten the inode, which it says later.
  bool made_another = false;
  for (int tries = 0; tries < 500 && !made_another; ++tries) {
    made_another = ::mkdir(mount.at("another").c_str(), 0755) == 0;
    if (!made_another) std::this_thread::sleep_for(10ms);
  }
  CHECK(made_another);
  check_counters(mount);
  CHECK(mount.log().find("max_dirs") != std::string::npos);
}

TEST_CASE("a mount keeps the lower mount's own flags") {
  if (!can_mount() || !has_programs({"findmnt"})) return;
  const MountFolders folders;
  const Mount mount(folders);
  const Finished source = run({"findmnt", "-no", "VFS-OPTIONS", "-T", folders.source()});
  const Finished mounted = run({"findmnt", "-no", "VFS-OPTIONS", folders.mountpoint()});
  REQUIRE(source.status == 0);
  REQUIRE(mounted.status == 0);
  for (const char* flag : {"nosuid", "nodev", "noexec"}) {
    INFO(flag << " in '" << source.output << "' and in '" << mounted.output << "'");
    CHECK((source.output.find(flag) != std::string::npos) ==
          (mounted.output.find(flag) != std::string::npos));
  }
}

TEST_CASE(
    "a daemon started under a limit of file sizes raises it, or fails writes beyond it only") {
  if (!can_mount()) return;
  const std::string large(1 << 20, 'x');
  SECTION("a soft limit") {
    const MountFolders folders;
    const Mount mount(folders, {.process = {.file_size = rlimit{4096, RLIM_INFINITY}}});
    write_file(mount.at("file"), large);
    CHECK(read_file(mount.at("file")) == large);
  }
  SECTION("a hard limit") {
    const MountFolders folders;
    const Mount mount(folders, {.process = {.file_size = rlimit{65536, 65536}}});
    const UniqueFd fd(::open(mount.at("file").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    REQUIRE(fd);
    CHECK(::pwrite(fd.get(), "x", 1, 70000) == -1);
    CHECK(errno == EFBIG);
    CHECK(::ftruncate(fd.get(), 70000) == -1);
    CHECK(errno == EFBIG);
    CHECK(::pwrite(fd.get(), "x", 1, 0) == 1);
    check_counters(mount);
  }
}
