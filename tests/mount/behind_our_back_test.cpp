#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

// What somebody changes in the lower directory while it is mounted is served as it is and breaks
// nothing. Where a request meets it the directory is suspect and recounted; the rest is the
// audit's, and the watcher's: here it is off, to leave requests the first to meet it.

using namespace tally::test;

TEST_CASE("a file changed behind our back is read as it is when it is opened next") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders, {.options = "watch=off"});
  write_file(mount.at("file"), "one");
  CHECK(read_file(mount.at("file")) == "one");
  write_file(mount.lower("file"), "two");
  CHECK(read_file(mount.at("file")) == "two");
  // Also when a stat of ours has seen the change before the open.
  write_file(mount.lower("file"), "three");
  struct statx stx{};
  REQUIRE(::statx(AT_FDCWD, mount.at("file").c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS,
                  &stx) == 0);
  CHECK(stx.stx_size == 5);
  CHECK(read_file(mount.at("file")) == "three");
}

TEST_CASE("a directory made behind our back is served, and counted once it has been met") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders, {.options = "watch=off"});
  REQUIRE(::mkdir(mount.at("known").c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.at("aside").c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.lower("known/new").c_str(), 0755) == 0);
  write_file(mount.lower("known/new/file"), "content");
  CHECK(read_file(mount.at("known/new/file")) == "content");
  check_healed(mount);
  write_file(mount.at("known/new/counted"), "123456789");
  REQUIRE(::rename(mount.at("known/new").c_str(), mount.at("aside/new").c_str()) == 0);
  CHECK(::unlink(mount.at("aside/new/file").c_str()) == 0);
  CHECK(::unlink(mount.at("aside/new/counted").c_str()) == 0);
  CHECK(::rmdir(mount.at("aside/new").c_str()) == 0);
  check_healed(mount);
}

TEST_CASE("a directory moved behind our back may become the parent of its former parent") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders, {.options = "watch=off"});
  REQUIRE(::mkdir(mount.at("a").c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.at("a/b").c_str(), 0755) == 0);
  REQUIRE(::rename(mount.lower("a/b").c_str(), mount.lower("b").c_str()) == 0);
  REQUIRE(::rename(mount.at("a").c_str(), mount.at("b/a").c_str()) == 0);
  write_file(mount.at("b/a/file"), "a change walks up to the root and ends there");
  CHECK(read_file(mount.lower("b/a/file")).size() == 44);
  check_healed(mount);
}

TEST_CASE("a directory that was emptied behind our back is removed, and nothing breaks later") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders, {.options = "watch=off"});
  for (const char* path : {"a", "b", "a/d", "a/d/e"})
    REQUIRE(::mkdir(mount.at(path).c_str(), 0755) == 0);
  write_file(mount.at("a/d/e/file"), "content");
  write_file(mount.at("a/d/e/linked"), "hello");
  REQUIRE(::link(mount.at("a/d/e/linked").c_str(), mount.at("b/linked").c_str()) == 0);
  REQUIRE(::unlink(mount.lower("a/d/e/file").c_str()) == 0);
  REQUIRE(::unlink(mount.lower("a/d/e/linked").c_str()) == 0);
  REQUIRE(::rmdir(mount.lower("a/d/e").c_str()) == 0);
  REQUIRE(::rmdir(mount.at("a/d").c_str()) == 0);
  for (int i = 0; i < 6; ++i) {
    const std::string name = "b/new" + std::to_string(i);
    REQUIRE(::mkdir(mount.at(name).c_str(), 0755) == 0);
    REQUIRE(::mkdir(mount.at(name + "/below").c_str(), 0755) == 0);
    CHECK(counter(mount.at(name), "rsubdirs") == 1);
  }
  CHECK(counter(mount.at("a"), "rsubdirs") == 0);
  CHECK(counter(mount.at(), "rsubdirs") == 14);
  CHECK(counter(mount.at(), "rbytes") == 5);
  check_healed(mount);
}

TEST_CASE(
    "a file whose other name went behind our back leaves nothing counted when it is removed") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders, {.options = "watch=off"});
  REQUIRE(::mkdir(mount.at("a").c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.at("b").c_str(), 0755) == 0);
  write_file(mount.at("a/file"), "hello");
  REQUIRE(::link(mount.at("a/file").c_str(), mount.at("b/file").c_str()) == 0);
  REQUIRE(::unlink(mount.lower("b/file").c_str()) == 0);
  const tally::UniqueFd open_file(::open(mount.at("a/file").c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(open_file);
  REQUIRE(::unlink(mount.at("a/file").c_str()) == 0);
  CHECK(counter(mount.at(), "rbytes") == 0);
  CHECK(counter(mount.at(), "orphan_bytes") == 5);
  check_healed(mount);
}
