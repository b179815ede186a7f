#include "tests/mount/audit.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"
#include "tests/mount/random_changes.hpp"

using namespace std::chrono_literals;
using namespace tally::test;

TEST_CASE("an audit of what nobody else has changed finds every directory right") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(11);
  INFO("seed " << seed);
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::hard_links, seed, 500);
  const Mount mount(folders);
  CHECK(read_xattr(mount.at(), audit_name).value() == "none");
  RandomChanges changes(mount.at(), seed);
  for (int step = 0; step < 3000; ++step)
    changes.step();
  changes.close_all();
  const auto found = audit(mount);
  CHECK(found.at("directories") == counter(mount.at(), "rsubdirs") + 1);
  CHECK(found.at("differences") == 0);
  CHECK(found.at("failed") == 0);
  check_counters(mount);
}

TEST_CASE("an audit finds and corrects what others have changed in the lower directory") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::mixed, 12, 300);
  for (const char* path : {"a", "a/deep", "a/deep/er", "b", "gone", "gone/too", "moves", "moves/1"})
    REQUIRE(::mkdir(folders.source(path).c_str(), 0755) == 0);
  for (const char* path : {"a/grows", "a/goes", "a/deep/er/linked", "gone/too/file", "moves/1/f"})
    write_file(folders.source(path), "content");
  const Mount mount(folders, {.options = "watch=off,audit_iops=0"});

  // Known to the kernel or not, each of these is found.
  struct stat st{};
  REQUIRE(::stat(mount.at("a/grows").c_str(), &st) == 0);
  write_file(mount.lower("a/grows"), std::string(100'000, 'x'));
  REQUIRE(::unlink(mount.lower("a/goes").c_str()) == 0);
  write_file(mount.lower("a/deep/comes"), "new");
  REQUIRE(::link(mount.lower("a/deep/er/linked").c_str(), mount.lower("b/linked").c_str()) == 0);
  std::filesystem::remove_all(mount.lower("gone"));
  REQUIRE(::mkdir(mount.lower("b/new").c_str(), 0755) == 0);
  write_file(mount.lower("b/new/file"), "in a new directory");
  REQUIRE(::rename(mount.lower("moves").c_str(), mount.lower("b/moved").c_str()) == 0);
  sync_filesystem(mount.lower());

  CHECK(audit(mount).at("differences") >= 4);
  check_healed(mount);  // what is new may just be recounted by the repairs
  CHECK(audit(mount).at("differences") == 0);
}

TEST_CASE("who asks for an audit does not wait for the one that never ends") {
  if (!can_mount()) return;
  const MountFolders folders;
  for (int i = 0; i < 100; ++i)
    write_file(folders.source("file" + std::to_string(i)), "content");
  const Mount mount(folders, {.options = "audit_iops=1"});
  std::this_thread::sleep_for(500ms);  // it has been in the directory, and rests for minutes
  const auto start = std::chrono::steady_clock::now();
  CHECK(audit(mount).at("differences") == 0);
  CHECK(std::chrono::steady_clock::now() - start < 30s);
}

TEST_CASE("very many directories that have gone behind our back are all found to be gone") {
  if (!can_mount()) return;
  const MountFolders folders("/dev/shm");
  constexpr int count = 66'000;  // more than a walk remembers
  REQUIRE(::mkdir(folders.source("gone").c_str(), 0755) == 0);
  for (int i = 0; i < count; ++i)
    REQUIRE(::mkdir(folders.source("gone/" + std::to_string(i)).c_str(), 0755) == 0);
  const Mount mount(folders, {.options = "audit_iops=0"});
  REQUIRE(counter(mount.at("gone"), "subdirs") == count);
  for (int i = 0; i < count; ++i)
    REQUIRE(::rmdir(mount.lower("gone/" + std::to_string(i)).c_str()) == 0);
  CHECK(audit(mount).at("differences") != 0);
  check_healed(mount);
  CHECK(counter(mount.at(), "rsubdirs") == 1);
}

TEST_CASE("an audit of a tree that changes all the time finds it right") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(13);
  INFO("seed " << seed);
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::mixed, seed, 1000);
  const Mount mount(folders);
  std::atomic<bool> over = false;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      RandomChanges changes(mount.at(), seed + i);
      while (!over)
        changes.step();
    });
  }
  for (int round = 0; round < 20; ++round) {
    const auto found = audit(mount);
    CHECK(found.at("failed") == 0);
  }
  over = true;
  for (std::thread& thread : threads)
    thread.join();
  check_healed(mount);
  check_counters(mount, true);
}

TEST_CASE("files that are written to at every moment are audited at the size they are counted") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  constexpr int writers = 3;
  std::atomic<bool> over = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < writers; ++i) {
    threads.emplace_back([&, i] {
      const std::string path = mount.at("file" + std::to_string(i));
      const tally::UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
      for (off_t size = 0; !over; size = (size + 4321) % 1'000'000)
        if (::ftruncate(file.get(), size) != 0) return;
    });
  }
  for (int round = 0; round < 100; ++round)
    CHECK(audit(mount).at("differences") == 0);
  over = true;
  for (std::thread& thread : threads)
    thread.join();
  check_counters(mount, true);
}

TEST_CASE("the audit that never ends heals what nobody asks for") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::mixed, 14, 100);
  const Mount mount(folders, {.options = "watch=off,audit_iops=100000"});
  write_file(mount.lower("new"), "made behind our back");
  const auto deadline = std::chrono::steady_clock::now() + 150s;
  while (!wrong_counters(mount, Compare::exact_parts).empty()) {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::sleep_for(100ms);
  }
}

TEST_CASE("only the root takes a request for an audit, and only the word now") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  REQUIRE(::mkdir(mount.at("below").c_str(), 0755) == 0);
  CHECK(::setxattr(mount.at().c_str(), audit_name, "later", 5, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(::setxattr(mount.at("below").c_str(), audit_name, "now", 3, 0) == -1);
  CHECK(errno == EPERM);
  CHECK(read_xattr(mount.at("below"), audit_name).error().value == ENODATA);
}
