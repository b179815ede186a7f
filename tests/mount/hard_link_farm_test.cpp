// Trees of hard links, as backup programs make them.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <thread>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

void in_mount(const Mount& mount, const std::string& commands) {
  const Finished finished = run({"sh", "-euc", commands}, mount.at(), std::chrono::seconds(300));
  INFO(commands << "\n" << finished.output);
  REQUIRE(finished.status == 0);
}

}  // namespace

TEST_CASE("30 snapshots of one tree, as rsnapshot makes and rotates them, are counted exactly") {
  if (!can_mount() || !has_programs({"cp", "rsync"})) return;
  const MountFolders folders;
  const Mount mount(folders, {.life_max = std::chrono::seconds(850)});
  in_mount(mount, R"sh(
    mkdir origin snapshots
    for d in 1 2 3 4 5 6 7 8; do
      mkdir -p origin/$d/deep/er
      for f in 1 2 3 4 5 6; do
        echo "content $d $f" > origin/$d/$f; echo "deep $d $f" > origin/$d/deep/er/$f
      done
    done
    rsync -a origin/ snapshots/0/
    for i in $(seq 1 29); do
      echo "changed in $i" > origin/$((i % 8 + 1))/deep/er/$((i % 6 + 1))
      echo "new in $i" > origin/$((i % 8 + 1))/new$i
      rsync -a --delete --link-dest=../$((i - 1)) origin/ snapshots/$i/
    done
  )sh");
  check_counters(mount);
  INFO("rotated: the oldest goes, all are renamed, the newest is linked with cp -al");
  in_mount(mount, R"sh(
    cd snapshots
    rm -rf 0
    for i in $(seq 1 29); do mv $i $((i - 1)); done
    cp -al 28 29
    echo "grown through one name" >> 29/1/1
  )sh");
  check_counters(mount);
  // What the newest alone holds is what removing it frees.
  CHECK(counter(mount.at("snapshots/29"), "runique") < counter(mount.at("snapshots/29"), "rdisk"));
  in_mount(mount, "rm -rf snapshots/1? snapshots/2?");
  check_counters(mount);
  in_mount(mount, "rm -rf snapshots origin");
  CHECK(counter(mount.at(), "rentries") == 0);
  check_counters(mount);
}

TEST_CASE("several writers that truncate and append and write to one file leave exact counters") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  REQUIRE(::mkdir(mount.at("d").c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.at("e").c_str(), 0755) == 0);
  write_file(mount.at("d/file"), "begun");
  REQUIRE(::link(mount.at("d/file").c_str(), mount.at("e/twin").c_str()) == 0);
  const std::string bytes(5'000, 'w');
  std::vector<std::thread> writers;
  writers.reserve(6);
  for (const int flags : {O_TRUNC, O_APPEND, 0, O_APPEND | O_TRUNC, O_APPEND, O_TRUNC}) {
    writers.emplace_back([&, flags] {
      for (int round = 0; round < 100; ++round) {
        const char* const name = round % 2 == 0 ? "d/file" : "e/twin";
        const UniqueFd fd(::open(mount.at(name).c_str(), O_WRONLY | O_CLOEXEC | flags));
        for (int piece = 0; piece < 3; ++piece)
          static_cast<void>(!::write(fd.get(), bytes.data(), bytes.size()));
        if (round % 10 == 0) static_cast<void>(!::ftruncate(fd.get(), round * 321));
      }
    });
  }
  for (std::thread& writer : writers)
    writer.join();
  check_counters(mount);
  CHECK(counter(mount.at("d"), "rbytes") == counter(mount.at("e"), "rbytes"));
}

TEST_CASE("attributes that take a block of their own are in rdisk of all ancestors") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  REQUIRE(::mkdir(mount.at("d").c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.at("d/e").c_str(), 0755) == 0);
  write_file(mount.at("d/e/file"), "");
  check_counters(mount);
  const int64_t before = counter(mount.at(), "rdisk");
  const std::string large(3'000, 'a');
  for (const char* path : {"d/e/file", "d/e"}) {
    REQUIRE(::setxattr(mount.at(path).c_str(), "user.large", large.data(), large.size(), 0) == 0);
    check_counters(mount);
  }
  struct stat st{};
  REQUIRE(::stat(mount.lower("d/e/file").c_str(), &st) == 0);
  // Where the filesystem below keeps them in blocks that it shows, as ext4 does.
  if (st.st_blocks != 0) CHECK(counter(mount.at(), "rdisk") > before);
  for (const char* path : {"d/e/file", "d/e"}) {
    REQUIRE(::removexattr(mount.at(path).c_str(), "user.large") == 0);
    check_counters(mount);
  }
  CHECK(counter(mount.at(), "rdisk") == before);
}
