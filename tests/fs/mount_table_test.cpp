#include "fs/mount_table.hpp"

#include <algorithm>

#include <catch2/catch.hpp>

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
  const auto below_root = tally::fs::mountpoints_below("/");
  CHECK(std::ranges::count(below_root, "/proc") == 1);
  CHECK(std::ranges::count(below_root, "/") == 0);
  const auto below_proc = tally::fs::mountpoints_below("/proc");
  CHECK(std::ranges::count(below_proc, "/proc") == 0);
  CHECK(
      std::ranges::all_of(below_proc, [](const auto& path) { return path.starts_with("/proc/"); }));
}
