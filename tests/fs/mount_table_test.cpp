#include "fs/mount_table.hpp"

#include <fcntl.h>

#include <algorithm>

#include <catch2/catch.hpp>

#include "core/file_stat.hpp"

TEST_CASE("a line of mountinfo is read with and without tags, and its escapes are undone") {
  const auto plain = tally::fs::parse_mount_entry(
      R"(36 35 98:0 /mnt1 /mnt\0402/a\134b rw,noatime - ext3 /dev/root rw,errors=continue)");
  REQUIRE(plain);
  CHECK(plain->device == "98:0");
  CHECK(plain->mountpoint == R"(/mnt 2/a\b)");
  CHECK(plain->options == "rw,noatime");
  CHECK(plain->type == "ext3");
  const auto tagged = tally::fs::parse_mount_entry(
      "40 22 0:35 / /srv rw,relatime shared:7 master:1 - fuse.tallyfs /srv rw,user_id=0");
  REQUIRE(tagged);
  CHECK(tagged->type == "fuse.tallyfs");
}

TEST_CASE("what is no line of mountinfo is no mount") {
  CHECK_FALSE(tally::fs::parse_mount_entry(""));
  CHECK_FALSE(tally::fs::parse_mount_entry("36 35 98:0 / /mnt rw"));
}

TEST_CASE("the mount at a path is found, and there is none where there is none") {
  REQUIRE(tally::fs::mount_at("/proc"));
  CHECK(tally::fs::mount_at("/proc")->type == "proc");
  CHECK_FALSE(tally::fs::mount_at("/proc/self"));
}

TEST_CASE("mounts below a directory are found, and not that on itself or beside") {
  const auto below_root = tally::fs::mounts_below("/");
  const auto is_at = [](const char* path) {
    return [path](const tally::fs::MountEntry& mount) { return mount.mountpoint == path; };
  };
  CHECK(std::ranges::count_if(below_root, is_at("/proc")) == 1);
  CHECK(std::ranges::count_if(below_root, is_at("/")) == 0);
  const auto below_proc = tally::fs::mounts_below("/proc");
  CHECK(std::ranges::count_if(below_proc, is_at("/proc")) == 0);
  CHECK(std::ranges::all_of(
      below_proc, [](const auto& mount) { return mount.mountpoint.starts_with("/proc/"); }));
}

TEST_CASE("the device of a mount is the one that stat tells") {
  const auto stat = tally::stat_at(AT_FDCWD, "/proc");
  CHECK(tally::fs::mount_at("/proc")->device_number() == stat.value().key.dev);
  CHECK(tally::fs::MountEntry().device_number() == 0);
}
