#include "core/hard_links.hpp"

#include <ctime>

#include <catch2/catch.hpp>

#include "core/accounts.hpp"

using tally::Accounts;
using tally::DirIndex;
using tally::FileRecord;
using tally::FileStat;

namespace {

FileStat dir_stat(uint64_t ino) {
  return {.key = {.ino = ino, .dev = 1}, .mode = S_IFDIR | 0755, .nlink = 2, .ctime_ns = 1'000};
}

FileStat file_stat(uint32_t nlink, int64_t blocks = 8) {
  return {.key = {.ino = 100, .dev = 1},
          .mode = S_IFREG | 0644,
          .nlink = nlink,
          .size = {blocks * 512},
          .blocks = {blocks},
          .ctime_ns = 2'000};
}

/// root / { a / deep, b }
struct Fixture {
  Fixture() {
    root = accounts.tree().insert({}, dir_stat(1)).value();
    a = accounts.dir_created(root, dir_stat(2)).value();
    deep = accounts.dir_created(a, dir_stat(3)).value();
    b = accounts.dir_created(root, dir_stat(4)).value();
  }

  int64_t disk(DirIndex dir) { return accounts.tree().counters(dir).rdisk.count; }
  int64_t unique(DirIndex dir) { return accounts.tree().counters(dir).runique.count; }
  int64_t files(DirIndex dir) { return accounts.tree().counters(dir).rfiles; }

  Accounts accounts{64, 64};
  DirIndex root, a, deep, b;
  FileRecord file;
};

}  // namespace

TEST_CASE("an inode with names in two siblings counts in each, and once in their parent") {
  Fixture t;
  t.accounts.name_added(t.file, t.a, file_stat(1));
  t.accounts.name_added(t.file, t.b, file_stat(2));
  REQUIRE(t.disk(t.a) == 8);
  REQUIRE(t.disk(t.b) == 8);
  REQUIRE(t.disk(t.root) == 8);
  REQUIRE(t.files(t.root) == 1);
}

TEST_CASE("blocks are unique where all names of the inode are below") {
  Fixture t;
  t.accounts.name_added(t.file, t.a, file_stat(1));
  t.accounts.name_added(t.file, t.b, file_stat(2));
  REQUIRE(t.unique(t.a) == 0);
  REQUIRE(t.unique(t.b) == 0);
  REQUIRE(t.unique(t.root) == 8);
  // A third name outside of the source: removing the whole tree would not free it.
  FileStat linked_outside = file_stat(3);
  linked_outside.ctime_ns += 1;
  t.accounts.file_observed(t.file, linked_outside, false);
  REQUIRE(t.unique(t.root) == 0);
}

TEST_CASE("growth of a hard-linked file reaches each directory of the union once") {
  Fixture t;
  t.accounts.name_added(t.file, t.deep, file_stat(1));
  t.accounts.name_added(t.file, t.a, file_stat(2));
  t.accounts.name_added(t.file, t.a, file_stat(3));
  t.accounts.file_observed(t.file, file_stat(3, 80), true);
  REQUIRE(t.disk(t.deep) == 80);
  REQUIRE(t.disk(t.a) == 80);
  REQUIRE(t.disk(t.root) == 80);
  REQUIRE(t.disk(t.b) == 0);
}

TEST_CASE("the union shrinks only where the last name below is gone") {
  Fixture t;
  t.accounts.name_added(t.file, t.deep, file_stat(1));
  t.accounts.name_added(t.file, t.b, file_stat(2));
  t.accounts.name_added(t.file, t.a, file_stat(3));
  t.accounts.name_removed(t.file, t.deep, file_stat(2), false);
  REQUIRE(t.disk(t.deep) == 0);
  REQUIRE(t.disk(t.a) == 8);
  t.accounts.name_removed(t.file, t.a, file_stat(1), false);
  REQUIRE(t.disk(t.a) == 0);
  REQUIRE(t.disk(t.root) == 8);
  REQUIRE(t.unique(t.b) == 8);
}

TEST_CASE("an inode that is back to one name, or none, is no longer tracked") {
  Fixture t;
  t.accounts.name_added(t.file, t.a, file_stat(1));
  REQUIRE(t.accounts.links().size() == 0);
  t.accounts.name_added(t.file, t.b, file_stat(2));
  REQUIRE(t.accounts.links().size() == 1);
  t.accounts.name_removed(t.file, t.a, file_stat(1), false);
  REQUIRE(t.accounts.links().size() == 0);
  REQUIRE(t.file.dir == t.b);
  t.accounts.name_removed(t.file, t.b, file_stat(0), false);
  REQUIRE(t.disk(t.root) == 0);
  REQUIRE(t.files(t.b) == 0);
}

TEST_CASE("a directory takes along a hard-linked inode, which stays where it has other names") {
  Fixture t;
  t.accounts.name_added(t.file, t.deep, file_stat(1));
  t.accounts.name_added(t.file, t.a, file_stat(2));
  t.accounts.dir_moved(t.deep, t.b, dir_stat(3));
  REQUIRE(t.disk(t.a) == 8);
  REQUIRE(t.disk(t.b) == 8);
  REQUIRE(t.disk(t.root) == 8);
  REQUIRE(t.unique(t.a) == 0);
  REQUIRE(t.unique(t.root) == 8);
  t.accounts.dir_moved(t.deep, t.a, dir_stat(3));
  REQUIRE(t.disk(t.b) == 0);
  REQUIRE(t.unique(t.a) == 8);
}

TEST_CASE("names found by a scan count nowhere until they are folded, then as if linked") {
  Fixture t;
  auto& links = t.accounts.links();
  REQUIRE(links.add_scanned_name(t.deep, file_stat(3)));
  REQUIRE(links.add_scanned_name(t.b, file_stat(3)));
  REQUIRE(links.add_scanned_name(t.b, file_stat(3)));
  REQUIRE(t.disk(t.root) == 0);
  links.fold();
  REQUIRE(t.disk(t.deep) == 8);
  REQUIRE(t.disk(t.b) == 8);
  REQUIRE(t.disk(t.root) == 8);
  REQUIRE(t.unique(t.root) == 8);
  REQUIRE(t.unique(t.b) == 0);
  REQUIRE(t.accounts.tree().counters(t.root).rctime_ns == 2'000);
}

TEST_CASE("names of one inode that a scan finds in turns, in two directories, can all go again") {
  Fixture t;
  auto& links = t.accounts.links();
  for (int i = 0; i < 3; ++i) {
    REQUIRE(links.add_scanned_name(t.a, file_stat(6)));
    REQUIRE(links.add_scanned_name(t.b, file_stat(6)));
    t.accounts.tree().add_entries(t.a, +1);
    t.accounts.tree().add_entries(t.b, +1);
  }
  links.fold();
  t.accounts.file_found(t.file, t.a, file_stat(6));
  for (uint32_t left = 5; left >= 3; --left)
    t.accounts.name_removed(t.file, t.a, file_stat(left), false);
  REQUIRE(t.files(t.a) == 0);
  REQUIRE(t.unique(t.b) == 8);
  t.accounts.dir_removed(t.b);
  REQUIRE(t.files(t.root) == 0);
  REQUIRE(t.disk(t.root) == 0);
  REQUIRE_FALSE(t.accounts.tree().counters(t.root).suspect);
}

TEST_CASE("recording a name takes no longer in a farm of snapshots, where an inode has very many") {
  constexpr uint32_t snapshots = 100'000;
  Accounts accounts(snapshots + 1, snapshots);
  const DirIndex root = accounts.tree().insert({}, dir_stat(1)).value();
  const std::clock_t start = std::clock();
  for (uint32_t i = 0; i < snapshots; ++i) {
    const DirIndex snapshot = accounts.tree().insert_scanned(root, dir_stat(1'000 + i)).value();
    REQUIRE(accounts.links().add_scanned_name(snapshot, file_stat(snapshots)));
  }
  // Looking at all earlier ones took eight seconds where this was measured.
  CHECK(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC < 5.0);
  accounts.links().fold();
  CHECK(accounts.tree().counters(root).rfiles == 1);
}

TEST_CASE("an inode found anew is known as it was counted, so that later growth shows") {
  Fixture t;
  t.accounts.name_added(t.file, t.a, file_stat(1));
  t.accounts.name_added(t.file, t.b, file_stat(2));
  FileRecord found;
  t.accounts.file_found(found, t.b, file_stat(2, 80));
  REQUIRE(t.disk(t.b) == 8);
  t.accounts.file_observed(found, file_stat(2, 80), false);
  REQUIRE(t.disk(t.a) == 80);
  REQUIRE(t.disk(t.root) == 80);
}

TEST_CASE("a suspect directory makes its new ancestors suspect when it moves") {
  Fixture t;
  t.accounts.tree().mark_suspect(t.deep);
  REQUIRE(t.accounts.tree().counters(t.a).suspect);
  REQUIRE_FALSE(t.accounts.tree().counters(t.b).suspect);
  t.accounts.dir_moved(t.deep, t.b, dir_stat(3));
  REQUIRE(t.accounts.tree().counters(t.b).suspect);
}

TEST_CASE("a directory removed behind our back takes its names of hard-linked inodes along") {
  Fixture t;
  t.accounts.name_added(t.file, t.b, file_stat(1));
  t.accounts.name_added(t.file, t.deep, file_stat(2));
  t.accounts.dir_removed(t.deep);
  REQUIRE(t.disk(t.a) == 0);
  REQUIRE(t.disk(t.b) == 8);
  REQUIRE(t.disk(t.root) == 8);
  REQUIRE(t.files(t.root) == 1);
}

TEST_CASE("with no room to follow another hard-linked inode the directory becomes suspect") {
  Accounts accounts(8, 1);
  const DirIndex root = accounts.tree().insert({}, dir_stat(1)).value();
  FileRecord first;
  accounts.name_added(first, root, file_stat(1));
  accounts.name_added(first, root, file_stat(2));
  REQUIRE_FALSE(accounts.tree().counters(root).suspect);
  FileStat other = file_stat(1);
  other.key.ino = 101;
  FileRecord second;
  accounts.name_added(second, root, other);
  other.nlink = 2;
  accounts.name_added(second, root, other);
  REQUIRE(accounts.tree().counters(root).suspect);
  REQUIRE(accounts.tree().counters(root).files == 4);
  REQUIRE(accounts.tree().counters(root).rfiles == 2);
}
