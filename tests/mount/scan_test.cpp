#include <sys/stat.h>
#include <sys/xattr.h>

#include <thread>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/sparse_file.hpp"

using namespace tally::test;

namespace {

/// A count of the same tree through the mount and beside it has to differ in nothing but time.
CountMap without_times(CountMap counted) {
  for (auto& [path, counters] : counted)
    counters.rctime_ns = 0;
  return counted;
}

/// The first number that a command prints.
int64_t first_number(const std::vector<std::string>& command) {
  const Finished finished = run(command);
  INFO(finished.output);
  REQUIRE(finished.status == 0);
  return std::stoll(finished.output);
}

}  // namespace

TEST_CASE("after the scan every counter of every directory equals the naive count") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(1);
  for (const TreeShape shape : all_tree_shapes) {
    INFO("shape " << name_of(shape) << ", seed " << seed);
    const MountFolders folders;
    make_fake_tree(folders.source(), shape, seed, 1500);

    const Mount mount(folders);

    check_counters(mount);
    for (const auto& [path, counters] : naive_count(folders.source())) {
      if (path.size() > 3000) continue;
      INFO("directory " << path);
      CHECK(rctime_ns(mount.at(path)) == counters.rctime_ns);
    }
  }
}

TEST_CASE("a walk through the mount counts what a walk of the lower directory counts") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(2);
  INFO("seed " << seed);
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::mixed, seed, 800);
  const Mount mount(folders);
  CHECK(without_times(naive_count(mount.at())) == without_times(naive_count(folders.source())));
}

TEST_CASE("the counters agree with du on every directory") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(3);
  INFO("seed " << seed);
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::hard_links, seed, 300);
  const Mount mount(folders);
  size_t directories = 0;
  for (const auto& [path, counters] : naive_count(folders.source())) {
    INFO("directory " << path);
    CHECK(counter(mount.at(path), "rdisk") ==
          first_number({"du", "-s", "-B1", folders.source(path)}));
    CHECK(counter(mount.at(path), "rentries") + 1 ==
          first_number({"du", "-s", "--inodes", folders.source(path)}));
    ++directories;
  }
  CHECK(directories > 5);
  CHECK(first_number({"du", "-s", "-B1", mount.at()}) == counter(mount.at(), "rdisk"));
}

TEST_CASE("an empty source has counters of zero and the blocks of its own directory") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_counters(mount);
  CHECK(counter(mount.at(), "rbytes") == 0);
  CHECK(counter(mount.at(), "rentries") == 0);
  CHECK(counter(mount.at(), "orphan_bytes") == 0);
}

TEST_CASE(
    "files that are dirty when the scan begins are counted with the blocks they end up with") {
  if (!can_mount()) return;
  const MountFolders folders;
  write_every_second_block(folders.source("sparse"), 2000);
  const Mount mount(folders);
  check_counters(mount, true);
}

TEST_CASE("dirsize=native leaves the size of directories alone") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::mixed, 4, 100);
  const Mount mount(folders, {.options = "dirsize=native"});
  struct stat lower{};
  struct stat mounted{};
  REQUIRE(::stat(folders.source().c_str(), &lower) == 0);
  REQUIRE(::stat(mount.at().c_str(), &mounted) == 0);
  CHECK(mounted.st_size == lower.st_size);
  CHECK(counter(mount.at(), "rbytes") == naive_count(folders.source()).at("").rbytes);
}

TEST_CASE("stat shows the live total of a directory soon after a change deep below it") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  REQUIRE(::mkdir(mount.at("a").c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.at("a/b").c_str(), 0755) == 0);
  struct stat st{};
  REQUIRE(::stat(mount.at("a").c_str(), &st) == 0);
  CHECK(st.st_size == 0);

  REQUIRE(::truncate(mount.at("a/b").c_str(), 5) == -1);
  REQUIRE(::mknod(mount.at("a/b/file").c_str(), S_IFREG | 0644, 0) == 0);
  REQUIRE(::truncate(mount.at("a/b/file").c_str(), 12345) == 0);

  // The kernel may keep attributes for the directories' timeout, at most a second.
  for (int tries = 0; tries < 100 && st.st_size != 12345; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    REQUIRE(::stat(mount.at("a").c_str(), &st) == 0);
  }
  CHECK(st.st_size == 12345);
}
