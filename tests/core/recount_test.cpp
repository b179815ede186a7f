#include "core/recount.hpp"

#include <cerrno>
#include <list>
#include <memory>
#include <vector>

#include <catch2/catch.hpp>

// One directory, recounted while what is in it changes. What the lower filesystem would say is
// made up here; whole mounts are in tests/mount.

namespace {

using tally::Accounts;
using tally::DirCounters;
using tally::DirIndex;
using tally::FileRecord;
using tally::FileStat;
using tally::Recount;

constexpr uint32_t directory_mode = S_IFDIR | 0755;

FileStat file(uint64_t ino, int64_t size, uint32_t nlink = 1, int64_t ctime_ns = 1) {
  return {.key = {.ino = ino, .dev = 1},
          .mode = S_IFREG | 0644,
          .nlink = nlink,
          .size = {size},
          .blocks = {size / 512},
          .ctime_ns = ctime_ns};
}

FileStat directory(uint64_t ino) {
  return {.key = {.ino = ino, .dev = 1}, .mode = directory_mode, .nlink = 2, .blocks = {8}};
}

/// root ─ a, b; nothing is counted in a yet.
struct Fixture {
  Accounts accounts{100, 100};
  DirIndex root = accounts.tree().insert({}, directory(1)).value();
  DirIndex a = accounts.dir_found(root, directory(2), false).value();
  DirIndex b = accounts.dir_created(root, directory(3)).value();

  [[nodiscard]] DirCounters at(DirIndex dir) { return accounts.tree().counters(dir); }

  /// A recount of `dir` that has begun.
  std::unique_ptr<Recount> begin(DirIndex dir) {
    auto recount = std::make_unique<Recount>(accounts, dir);
    REQUIRE(recount->begin());
    return recount;
  }

  /// Empties what is to be recounted below the root.
  void settle() { accounts.tree().settle_suspects_below(root); }
};

}  // namespace

TEST_CASE("of a directory that was not scanned yet a recount counts what it finds") {
  Fixture t;
  REQUIRE(t.at(t.root).suspect);
  REQUIRE(t.at(t.a).suspect);
  REQUIRE_FALSE(t.at(t.b).suspect);
  auto recount = t.begin(t.a);
  recount->meet(file(10, 1024));
  recount->meet(file(11, 2048));
  REQUIRE_FALSE(recount->finish(true));
  t.settle();
  REQUIRE(t.at(t.a).rbytes.count == 3072);
  REQUIRE(t.at(t.a).rdisk.count == 8 + 6);
  REQUIRE(t.at(t.a).files == 2);
  REQUIRE(t.at(t.root).rbytes.count == 3072);
  REQUIRE(t.at(t.root).rfiles == 2);
  REQUIRE_FALSE(t.at(t.a).suspect);
  REQUIRE_FALSE(t.at(t.root).suspect);
}

TEST_CASE("a second recount finds nothing to correct") {
  Fixture t;
  for (const bool agrees : {false, true}) {
    auto recount = t.begin(t.a);
    recount->meet(file(10, 1024));
    REQUIRE(recount->finish(true) == agrees);
  }
  REQUIRE(t.at(t.a).rbytes.count == 1024);
}

TEST_CASE("what happened to a directory before it is scanned counts neither twice nor not at all") {
  Fixture t;
  // One file was looked up and removed, one grew, one was made.
  FileRecord removed;
  t.accounts.file_found(removed, t.a, file(10, 5120));
  t.accounts.name_removed(removed, t.a, file(10, 5120, 0), false);
  REQUIRE(t.at(t.a).rbytes.count == -5120);
  FileRecord grown;
  t.accounts.file_found(grown, t.a, file(11, 1024));
  t.accounts.file_observed(grown, file(11, 4096), true);
  FileRecord made;
  t.accounts.name_added(made, t.a, file(12, 512));

  auto recount = t.begin(t.a);
  recount->meet(grown, file(11, 4096));
  recount->meet(made, file(12, 512));
  recount->meet(file(13, 1024));
  static_cast<void>(recount->finish(true));
  t.settle();
  REQUIRE(t.at(t.a).rbytes.count == 4096 + 512 + 1024);
  REQUIRE(t.at(t.a).files == 3);
  REQUIRE(t.at(t.root).rbytes.count == 4096 + 512 + 1024);
  REQUIRE_FALSE(t.at(t.root).suspect);
}

TEST_CASE("a file counts at its size of the end, wherever in a recount it grows") {
  Fixture t;
  FileRecord early;
  FileRecord late;
  t.accounts.name_added(early, t.b, file(10, 1024));
  t.accounts.name_added(late, t.b, file(11, 1024));
  auto recount = t.begin(t.b);
  t.accounts.file_observed(early, file(10, 2048), true);
  recount->meet(early, file(10, 2048));
  t.accounts.file_observed(early, file(10, 8192), true);
  t.accounts.file_observed(late, file(11, 4096), true);
  recount->meet(late, file(11, 4096));
  REQUIRE(recount->finish(true));
  t.accounts.file_observed(late, file(11, 512), true);
  REQUIRE(t.at(t.b).rbytes.count == 8192 + 512);
  REQUIRE(t.at(t.root).rbytes.count == 8192 + 512);
}

TEST_CASE("a file that is gone behind our back is counted no more, also when it is written to") {
  Fixture t;
  FileRecord gone;
  t.accounts.name_added(gone, t.b, file(10, 1024));
  auto recount = t.begin(t.b);
  REQUIRE_FALSE(recount->finish(true));
  REQUIRE(t.at(t.b).rbytes.count == 0);
  REQUIRE(t.at(t.b).files == 0);
  t.accounts.file_observed(gone, file(10, 4096), true);
  REQUIRE(t.at(t.b).rbytes.count == 0);
  REQUIRE_FALSE(t.at(t.b).suspect);
  REQUIRE_FALSE(gone.place);
}

TEST_CASE("a file that moved behind our back moves when it is met, whoever is recounted first") {
  const bool new_place_first = GENERATE(true, false);
  Fixture t;
  const DirIndex c = t.accounts.dir_created(t.root, directory(4)).value();
  FileRecord moved;
  t.accounts.name_added(moved, t.b, file(10, 1024));
  const auto recount_new = [&] {
    auto recount = t.begin(c);
    recount->meet(moved, file(10, 1024));
    REQUIRE_FALSE(recount->finish(true));
  };
  if (new_place_first) recount_new();
  auto recount = t.begin(t.b);
  REQUIRE(recount->finish(true) == new_place_first);
  if (!new_place_first) recount_new();
  REQUIRE(t.at(t.b).rbytes.count == 0);
  REQUIRE(t.at(c).rbytes.count == 1024);
  REQUIRE(t.at(t.root).rbytes.count == 1024);
  t.accounts.file_observed(moved, file(10, 2048), true);
  REQUIRE(t.at(c).rbytes.count == 2048);
}

TEST_CASE("hard-linked names are met by number: those too few are added, those too many go") {
  Fixture t;
  FileRecord linked;
  t.accounts.name_added(linked, t.b, file(10, 1024, 1));
  t.accounts.name_added(linked, t.b, file(10, 1024, 2));
  t.accounts.name_added(linked, t.root, file(10, 1024, 3));

  SECTION("as they are counted") {
    auto recount = t.begin(t.b);
    recount->meet(linked, file(10, 1024, 3));
    recount->meet(linked, file(10, 1024, 3));
    REQUIRE(recount->finish(true));
    REQUIRE(t.at(t.b).files == 2);
  }
  SECTION("one more") {
    auto recount = t.begin(t.b);
    for (int i = 0; i < 3; ++i)
      recount->meet(linked, file(10, 1024, 4));
    REQUIRE_FALSE(recount->finish(true));
    REQUIRE(t.at(t.b).files == 3);
  }
  SECTION("one less") {
    auto recount = t.begin(t.b);
    recount->meet(linked, file(10, 1024, 2));
    REQUIRE_FALSE(recount->finish(true));
    REQUIRE(t.at(t.b).files == 1);
  }
  REQUIRE(t.at(t.b).rbytes.count == 1024);
  REQUIRE(t.at(t.b).rfiles == 1);
  REQUIRE(t.at(t.root).rbytes.count == 1024);
}

TEST_CASE("a second name made behind our back counts once in every directory that has one") {
  Fixture t;
  FileRecord linked;
  t.accounts.name_added(linked, t.b, file(10, 1024, 1));
  auto recount = t.begin(t.a);
  recount->meet(linked, file(10, 1024, 2));
  static_cast<void>(recount->finish(true));
  REQUIRE(linked.link);
  REQUIRE(t.at(t.a).rbytes.count == 1024);
  REQUIRE(t.at(t.b).rbytes.count == 1024);
  REQUIRE(t.at(t.root).rbytes.count == 1024);
  REQUIRE(t.at(t.a).runique.count == 8);
  REQUIRE(t.at(t.root).runique.count == 3 * 8 + 2);
  // What b counted as a file of one name it counts as a link now.
  auto again = t.begin(t.b);
  again->meet(linked, file(10, 1024, 2));
  REQUIRE(again->finish(true));
}

TEST_CASE("a file that loses or gets its other name while its directory is recounted counts once") {
  const bool met_before = GENERATE(true, false);
  Fixture t;
  FileRecord linked;
  t.accounts.name_added(linked, t.b, file(10, 1024, 1));
  SECTION("gets one") {
    auto recount = t.begin(t.b);
    if (met_before) recount->meet(linked, file(10, 1024, 1));
    t.accounts.name_added(linked, t.root, file(10, 1024, 2));
    if (!met_before) recount->meet(linked, file(10, 1024, 2));
    REQUIRE(recount->finish(true));
    REQUIRE(linked.link);
    REQUIRE(t.at(t.root).files == 1);
  }
  SECTION("loses one") {
    t.accounts.name_added(linked, t.root, file(10, 1024, 2));
    auto recount = t.begin(t.b);
    if (met_before) recount->meet(linked, file(10, 1024, 2));
    t.accounts.name_removed(linked, t.root, file(10, 1024, 1), false);
    if (!met_before) recount->meet(linked, file(10, 1024, 1));
    REQUIRE(recount->finish(true));
    REQUIRE(linked.place.dir == t.b);
    REQUIRE(t.at(t.root).files == 0);
  }
  REQUIRE(t.at(t.b).rbytes.count == 1024);
  REQUIRE(t.at(t.b).files == 1);
  REQUIRE(t.at(t.root).rbytes.count == 1024);
  t.accounts.file_observed(linked, file(10, 2048, linked.link ? 2 : 1), true);
  REQUIRE(t.at(t.b).rbytes.count == 2048);
}

TEST_CASE("children that are not met say so, those met elsewhere move") {
  Fixture t;
  const DirIndex child = t.accounts.dir_created(t.b, directory(4)).value();
  FileRecord inside;
  t.accounts.name_added(inside, child, file(10, 1024));
  auto recount = t.begin(t.b);
  REQUIRE_FALSE(recount->finish(true));
  REQUIRE(t.accounts.tree().is_unseen(child));
  auto other = t.begin(t.a);
  REQUIRE_FALSE(other->meet_directory(directory(4).key));
  REQUIRE(t.accounts.dir_found(t.a, directory(4), false).value() == child);
  REQUIRE(other->meet_directory(directory(4).key));
  static_cast<void>(other->finish(true));
  REQUIRE_FALSE(t.accounts.tree().is_unseen(child));
  REQUIRE(t.at(t.a).rbytes.count == 1024);
  REQUIRE(t.at(t.b).rbytes.count == 0);
  REQUIRE(t.at(t.b).subdirs == 0);
}

TEST_CASE("what is mounted in a second place stays counted where it was met first") {
  Fixture t;
  const DirIndex child = t.accounts.dir_created(t.b, directory(4)).value();
  REQUIRE(t.accounts.dir_found(t.a, directory(4), true).value() == child);
  REQUIRE(t.accounts.tree().parent(child) == t.b);
}

TEST_CASE("a recount that could not see all leaves the directory suspect and takes nothing away") {
  Fixture t;
  FileRecord known;
  t.accounts.name_added(known, t.b, file(10, 1024));
  {
    auto recount = t.begin(t.b);
    REQUIRE_FALSE(recount->finish(false));
  }
  REQUIRE(t.at(t.b).suspect);
  REQUIRE(t.at(t.root).suspect);
  REQUIRE(t.at(t.b).rbytes.count == 1024);
  // The next one that can see it puts it right.
  auto recount = t.begin(t.b);
  recount->meet(known, file(10, 1024));
  static_cast<void>(recount->finish(true));
  REQUIRE_FALSE(t.at(t.b).suspect);
  REQUIRE(t.at(t.b).rbytes.count == 1024);
  REQUIRE(t.at(t.b).files == 1);
}

TEST_CASE("a directory that becomes suspect while it is recounted stays so") {
  Fixture t;
  auto recount = t.begin(t.a);
  t.accounts.tree().mark_suspect(t.a);
  static_cast<void>(recount->finish(true));
  t.settle();
  REQUIRE(t.at(t.a).suspect);
  REQUIRE(t.at(t.root).suspect);
}

TEST_CASE("a directory that is removed while it is recounted is gone, and its recount harmless") {
  Fixture t;
  auto recount = t.begin(t.b);
  recount->meet(file(10, 1024));
  t.accounts.dir_removed(t.b);
  REQUIRE(recount->finish(true));
  REQUIRE(t.at(t.root).rsubdirs == 1);
  REQUIRE(t.at(t.root).rbytes.count == 0);
  REQUIRE(Recount(t.accounts, t.b).begin().error().value == ENOENT);
}

TEST_CASE("one directory is recounted by one at a time, and by a bounded number in all") {
  Fixture t;
  const auto recount = t.begin(t.b);
  REQUIRE(Recount(t.accounts, t.b).begin().error().value == EBUSY);
  std::vector<DirIndex> dirs;
  std::list<Recount> recounts;
  tally::Status begun;
  for (uint64_t ino = 10; begun && ino < 60; ++ino) {
    const DirIndex dir = t.accounts.dir_created(t.root, directory(ino)).value();
    begun = recounts.emplace_back(t.accounts, dir).begin();
  }
  REQUIRE(begun.error().value == EAGAIN);
}

TEST_CASE("a directory that moves while it is recounted takes its suspicion along") {
  Fixture t;
  const DirIndex c = t.accounts.dir_created(t.root, directory(4)).value();
  auto recount = t.begin(t.a);
  recount->meet(file(10, 1024));
  t.accounts.dir_moved(t.a, c, directory(2));
  REQUIRE(t.at(c).suspect);
  static_cast<void>(recount->finish(true));
  REQUIRE(t.at(c).rbytes.count == 1024);
  REQUIRE(t.at(t.root).rbytes.count == 1024);
  t.accounts.tree().settle_suspects_below(c);
  t.settle();
  REQUIRE_FALSE(t.at(c).suspect);
  REQUIRE_FALSE(t.at(t.root).suspect);
}

TEST_CASE("totals that are not what is below makes of them are found and put right") {
  Fixture t;
  const DirIndex c = t.accounts.dir_created(t.b, directory(4)).value();
  FileRecord plain;
  FileRecord linked;
  t.accounts.name_added(plain, c, file(10, 1024));
  t.accounts.name_added(linked, c, file(11, 2048));
  t.accounts.name_added(linked, t.b, file(11, 2048, 2));
  t.accounts.name_added(linked, t.root, file(11, 2048, 3));
  auto& links = t.accounts.links();
  for (const DirIndex dir : {t.root, t.a, t.b, c})
    REQUIRE(links.verify(dir, 100));

  const DirCounters before = t.at(t.b);
  tally::DirNode& damaged = t.accounts.tree().node(t.b);
  damaged.bytes += 7;
  damaged.disk_blocks -= 3;
  damaged.unique_blocks += 1;
  damaged.rfiles += 2;
  damaged.rsubdirs -= 1;
  REQUIRE(links.verify(c, 100));
  REQUIRE(links.verify(t.b, 1));  // too many names to look into
  REQUIRE_FALSE(links.verify(t.b, 100));
  REQUIRE(links.verify(t.b, 100));
  REQUIRE(links.verify(t.root, 100));
  const DirCounters after = t.at(t.b);
  REQUIRE(after.rbytes == before.rbytes);
  REQUIRE(after.rdisk == before.rdisk);
  REQUIRE(after.runique == before.runique);
  REQUIRE(after.rfiles == before.rfiles);
  REQUIRE(after.rsubdirs == before.rsubdirs);
}
