#include "core/hard_links.hpp"

#include <ctime>
#include <vector>

#include <catch2/catch.hpp>

#include "core/accounts.hpp"
#include "core/recount.hpp"

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
  REQUIRE(t.file.place.dir == t.b);
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

TEST_CASE("a directory renamed within its parent keeps every counter, also of hard-linked inodes") {
  Fixture t;
  t.accounts.name_added(t.file, t.deep, file_stat(1));
  t.accounts.name_added(t.file, t.b, file_stat(2));
  const uint64_t rgen = t.accounts.tree().counters(t.root).rgen;
  t.accounts.dir_moved(t.deep, t.a, dir_stat(3));
  for (const DirIndex dir : {t.deep, t.a, t.b, t.root}) {
    REQUIRE(t.disk(dir) == 8);
    REQUIRE(t.files(dir) == 1);
    REQUIRE(t.unique(dir) == (dir == t.root ? 8 : 0));
  }
  REQUIRE(t.accounts.tree().counters(t.root).rgen > rgen);
  t.accounts.name_removed(t.file, t.deep, file_stat(1), false);
  REQUIRE(t.files(t.a) == 0);
  REQUIRE(t.files(t.root) == 1);
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
  for (uint32_t left = 3; left-- > 0;)
    t.accounts.name_removed(t.file, t.b, file_stat(left), false);
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

TEST_CASE("a directory that would move below itself stays where it is, and all of it is suspect") {
  Fixture t;
  t.accounts.name_added(t.file, t.deep, file_stat(1));
  for (const DirIndex to : {t.deep, t.a}) {
    t.accounts.dir_moved(t.a, to, dir_stat(2));
    REQUIRE(t.accounts.tree().parent(t.a) == t.root);
    REQUIRE(t.accounts.tree().parent(t.deep) == t.a);
    REQUIRE(t.disk(t.root) == 8);
  }
  for (const DirIndex dir : {t.deep, t.a, t.root})
    REQUIRE(t.accounts.tree().counters(dir).suspect);
  REQUIRE_FALSE(t.accounts.tree().counters(t.b).suspect);
}

TEST_CASE("a directory moves neither from nor to where it was removed behind our back") {
  Fixture t;
  t.accounts.dir_removed(t.deep);
  t.accounts.dir_moved(t.deep, t.b, dir_stat(3));
  REQUIRE(t.accounts.tree().counters(t.b).suspect);
  REQUIRE(t.accounts.tree().counters(t.b).rsubdirs == 0);
  t.accounts.dir_moved(t.b, t.deep, dir_stat(4));
  REQUIRE(t.accounts.tree().parent(t.b) == t.root);
  REQUIRE(t.accounts.tree().counters(t.root).suspect);
  REQUIRE(t.accounts.tree().counters(t.root).rsubdirs == 2);
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

TEST_CASE("when the last name is gone, names that went behind our back are not counted any more") {
  Fixture t;
  t.accounts.name_added(t.file, t.a, file_stat(1));
  t.accounts.name_added(t.file, t.b, file_stat(2));
  t.accounts.name_added(t.file, t.b, file_stat(3));
  const bool is_open = GENERATE(false, true);
  t.accounts.name_removed(t.file, t.a, file_stat(0), is_open);
  REQUIRE(t.files(t.root) == 0);
  REQUIRE(t.disk(t.b) == 0);
  REQUIRE(t.accounts.tree().counters(t.b).files == 0);
  REQUIRE(t.accounts.tree().counters(t.b).suspect);
  REQUIRE_FALSE(t.accounts.tree().counters(t.a).suspect);
  REQUIRE(t.accounts.links().size() == 0);
  REQUIRE(t.accounts.orphan_bytes().count == (is_open ? 8 * 512 : 0));
}

TEST_CASE("a last name that is not the one that was counted takes its count along") {
  Fixture t;
  t.accounts.name_added(t.file, t.a, file_stat(1));
  t.accounts.name_removed(t.file, t.b, file_stat(0), false);
  REQUIRE(t.files(t.root) == 0);
  REQUIRE(t.disk(t.a) == 0);
  REQUIRE(t.accounts.tree().counters(t.a).suspect);
  REQUIRE(t.accounts.tree().counters(t.b).suspect);
  REQUIRE_FALSE(t.file.place.dir);
}

TEST_CASE("a new inode has nothing of the one that had its number before") {
  Fixture t;
  t.accounts.name_added(t.file, t.a, file_stat(1));
  t.accounts.name_added(t.file, t.a, file_stat(2));
  FileRecord created;
  t.accounts.name_added(created, t.b, file_stat(1, 16));
  FileRecord found;
  t.accounts.file_found(found, t.b, file_stat(1, 16));
  t.accounts.file_observed(found, file_stat(1, 80), true);
  REQUIRE(t.disk(t.b) == 80);
  REQUIRE(t.disk(t.root) == 80);
  REQUIRE(t.files(t.a) == 0);
  REQUIRE(t.accounts.tree().counters(t.a).suspect);
  REQUIRE_FALSE(t.accounts.tree().counters(t.b).suspect);
  t.accounts.name_removed(found, t.b, file_stat(0), false);
  REQUIRE(t.files(t.root) == 0);
}

TEST_CASE("a directory that was emptied behind our back is removed with all that was below it") {
  Fixture t;
  tally::DirTree& tree = t.accounts.tree();
  const DirIndex deeper = t.accounts.dir_created(t.deep, dir_stat(5)).value();
  t.accounts.name_added(t.file, deeper, file_stat(1));
  t.accounts.name_added(t.file, t.b, file_stat(2));
  t.accounts.dir_removed(t.deep);
  REQUIRE(tree.counters(t.a).suspect);
  REQUIRE(tree.counters(t.a).rsubdirs == 0);
  REQUIRE(tree.counters(t.root).rsubdirs == 2);
  REQUIRE(t.disk(t.a) == 0);
  REQUIRE(t.disk(t.b) == 8);
  REQUIRE(t.disk(t.root) == 8);
  REQUIRE_FALSE(tree.find({.ino = 3, .dev = 1}));
  REQUIRE_FALSE(tree.find({.ino = 5, .dev = 1}));
  REQUIRE(tree.size() == 3);

  t.accounts.dir_removed(deeper);
  REQUIRE(tree.size() == 3);
  tree.release(deeper);
  tree.release(t.deep);
  REQUIRE(tree.nodes_held() == 3);
}

TEST_CASE("a directory that was empty when it was removed leaves nobody suspect") {
  Fixture t;
  t.accounts.name_added(t.file, t.deep, file_stat(1));
  t.accounts.name_added(t.file, t.deep, file_stat(2));
  t.accounts.name_removed(t.file, t.deep, file_stat(1), false);
  t.accounts.name_removed(t.file, t.deep, file_stat(0), false);
  t.accounts.dir_removed(t.deep);
  REQUIRE_FALSE(t.accounts.tree().counters(t.root).suspect);
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
  // Neither as a name nor as an inode: a recount of the directory needs both to agree.
  REQUIRE(accounts.tree().counters(root).files == 3);
  REQUIRE(accounts.tree().counters(root).rfiles == 2);
}

TEST_CASE("of an inode that can't be followed, the name that is counted stays counted") {
  Accounts accounts(8, 1);
  const DirIndex root = accounts.tree().insert({}, dir_stat(1)).value();
  const DirIndex a = accounts.dir_created(root, dir_stat(2)).value();
  const DirIndex b = accounts.dir_created(root, dir_stat(3)).value();
  const DirIndex c = accounts.dir_created(root, dir_stat(4)).value();
  FileRecord first;
  accounts.name_added(first, root, file_stat(1));
  accounts.name_added(first, root, file_stat(2));
  FileStat other = file_stat(1);
  other.key.ino = 101;
  FileRecord second;
  accounts.name_added(second, a, other);
  other.nlink = 2;
  accounts.name_added(second, b, other);
  REQUIRE(accounts.tree().counters(a).suspect);
  REQUIRE(accounts.tree().counters(b).suspect);

  accounts.name_moved(second, b, c, other);
  REQUIRE(second.place.dir == a);
  REQUIRE(accounts.tree().counters(a).rfiles == 1);
  REQUIRE(accounts.tree().counters(b).files == 0);
  REQUIRE(accounts.tree().counters(c).files == 0);
  REQUIRE(accounts.tree().counters(c).suspect);

  // The counted one is unlinked: what is left is counted nowhere, and its rename adds nothing.
  other.nlink = 1;
  accounts.name_removed(second, a, other, false);
  accounts.name_moved(second, c, b, other);
  REQUIRE_FALSE(second.place.dir);
  accounts.name_removed(second, b, {.key = other.key}, false);
  for (const DirIndex dir : {a, b, c}) {
    REQUIRE(accounts.tree().counters(dir).rfiles == 0);
    REQUIRE(accounts.tree().counters(dir).rdisk.count == 0);
  }
}

TEST_CASE("names that may be counted elsewhere are to be searched for, once for each inode") {
  Fixture t;
  tally::HardLinks& links = t.accounts.links();
  FileStat now = file_stat(2);
  now.ctime_ns = tally::now_ns();
  const auto find_name_in = [&](DirIndex dir) {
    tally::Recount recount(t.accounts, dir);
    REQUIRE(recount.begin());
    recount.meet(t.file, now);
    recount.finish(true);
  };

  SECTION("another one than the one that was found") {
    find_name_in(t.deep);
    REQUIRE(links.has_names_to_search());
    REQUIRE_FALSE(links.has_names_to_search());
    now.size += tally::Bytes{1};
    t.accounts.file_observed(t.file, now, true);
    REQUIRE_FALSE(links.has_names_to_search());
  }
  SECTION("not if the inode has not changed since a given time") {
    find_name_in(t.deep);
    REQUIRE_FALSE(links.has_names_to_search(now.ctime_ns + 1));
    REQUIRE_FALSE(links.has_names_to_search());
  }
  SECTION("not if all were known, and one is lost, or all are") {
    find_name_in(t.deep);
    find_name_in(t.b);
    for (const DirIndex dir : {t.deep, t.b}) {
      tally::Recount recount(t.accounts, dir);
      REQUIRE(recount.begin());
      recount.finish(true);
      REQUIRE_FALSE(links.has_names_to_search());
    }
  }
  SECTION("not if all were found meanwhile") {
    find_name_in(t.deep);
    find_name_in(t.b);
    REQUIRE_FALSE(links.has_names_to_search());
  }
  SECTION("not if the name was made through us") {
    FileStat before = now;
    before.nlink = 1;
    t.accounts.name_added(t.file, t.a, before);
    t.accounts.name_added(t.file, t.b, now);
    REQUIRE_FALSE(links.has_names_to_search());
  }
  SECTION("after a scan, too, which believes the newest link count that it meets") {
    REQUIRE(links.add_scanned_name(t.a, now));
    now.ctime_ns += 1;
    now.nlink = 3;
    REQUIRE(links.add_scanned_name(t.b, now));
    links.fold();
    REQUIRE(links.has_names_to_search());
    REQUIRE_FALSE(links.has_names_to_search());
  }
}

namespace {

/// A flat tree whose HardLinks have room for `inodes` inodes and are given names until they have
/// none for another: of the inode of file_stat(), one in each of `full`.
struct FullOfNames {
  explicit FullOfNames(uint32_t inodes) : accounts(64, inodes) {
    root = accounts.tree().insert({}, dir_stat(1)).value();
    while (accounts.links().add_scanned_name(add_dir(), file_stat(2)))
      full.push_back(dirs.back());
    accounts.links().fold();
  }

  DirIndex add_dir() {
    dirs.push_back(accounts.dir_created(root, dir_stat(dirs.size() + 2)).value());
    return dirs.back();
  }

  Accounts accounts;
  DirIndex root;
  std::vector<DirIndex> dirs, full;
};

}  // namespace

TEST_CASE("an inode whose first name finds no room is not tracked") {
  FullOfNames t(2);
  FileStat other = file_stat(2);
  other.key.ino = 101;
  REQUIRE(t.accounts.links().add_scanned_name(t.full[0], other).error().value == ENOSPC);
  REQUIRE_FALSE(t.accounts.links().find(other.key));
  REQUIRE(t.accounts.links().size() == 1);
}

TEST_CASE("a name can move even when there is no room for another") {
  FullOfNames t(1);
  FileRecord file;
  t.accounts.file_found(file, t.full[0], file_stat(2));
  const DirIndex to = t.add_dir();
  t.accounts.name_moved(file, t.full[0], to, file_stat(2));
  REQUIRE(t.accounts.tree().counters(to).rfiles == 1);
  REQUIRE(t.accounts.tree().counters(t.full[0]).rfiles == 0);
  REQUIRE(t.accounts.tree().counters(t.root).rfiles == 1);
  REQUIRE_FALSE(t.accounts.tree().counters(to).suspect);
}

TEST_CASE("where one end of a move is not recorded, the other end is counted all the same") {
  FullOfNames t(1);
  FileRecord file;
  t.accounts.file_found(file, t.full[0], file_stat(2));
  const DirIndex unknown = t.add_dir();
  t.accounts.name_moved(file, unknown, t.full[0], file_stat(2));
  REQUIRE(t.accounts.tree().counters(unknown).suspect);
  // Both names that full[0] has now are known: with the one gone, it still has the other.
  t.accounts.name_removed(file, t.full[0], file_stat(2), false);
  REQUIRE(t.accounts.tree().counters(t.full[0]).rfiles == 1);
}
