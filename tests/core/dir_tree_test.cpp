#include "core/dir_tree.hpp"

#include <atomic>
#include <chrono>
#include <ctime>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

using tally::Bytes;
using tally::Delta;
using tally::DirCounters;
using tally::DirIndex;
using tally::DirTree;
using tally::FileStat;
using tally::StaleList;

namespace {

FileStat dir_stat(uint64_t ino, int64_t blocks = 8, int64_t ctime_ns = 1'000) {
  return {.key = {.ino = ino, .dev = 1},
          .mode = S_IFDIR | 0755,
          .nlink = 2,
          .blocks = {blocks},
          .ctime_ns = ctime_ns};
}

/// root / middle / leaf, and root / other; only the directories' own blocks are counted.
struct SmallTree {
  explicit SmallTree(StaleList* stale = nullptr) : tree(16, stale) {
    root = tree.insert({}, dir_stat(1)).value();
    middle = add(root, 2);
    leaf = add(middle, 3);
    other = add(root, 4);
  }

  DirIndex add(DirIndex parent, uint64_t ino) {
    const DirIndex dir = tree.insert(parent, dir_stat(ino)).value();
    return dir;
  }

  DirTree tree;
  DirIndex root, middle, leaf, other;
};

void remove(DirTree& tree, DirIndex dir) {
  tally::WriterLock lock(tree.lock());
  tree.remove(dir);
}

constexpr Delta one_file{.bytes = {100}, .disk = {8}, .unique = {8}, .files = 1};

}  // namespace

TEST_CASE("a directory counts its own blocks and those of all directories below") {
  SmallTree t;
  const DirCounters root = t.tree.counters(t.root);
  REQUIRE(root.rsubdirs == 3);
  REQUIRE(root.subdirs == 2);
  REQUIRE(root.rdisk.count == 32);
  REQUIRE(root.runique.count == 32);
  REQUIRE(root.rentries() == 3);
  REQUIRE(t.tree.counters(t.leaf).rdisk.count == 8);
}

TEST_CASE("a delta reaches every ancestor and nobody else") {
  SmallTree t;
  t.tree.apply(t.leaf, one_file, 5'000);
  for (const DirIndex dir : {t.leaf, t.middle, t.root}) {
    REQUIRE(t.tree.counters(dir).rbytes.count == 100);
    REQUIRE(t.tree.counters(dir).rfiles == 1);
    REQUIRE(t.tree.counters(dir).rctime_ns == 5'000);
  }
  REQUIRE(t.tree.counters(t.other).rbytes.count == 0);
  REQUIRE(t.tree.counters(t.other).rctime_ns == 1'000);
}

TEST_CASE("rgen grows in every ancestor, even by a change that adds nothing") {
  SmallTree t;
  const uint64_t root_before = t.tree.counters(t.root).rgen;
  const uint64_t other_before = t.tree.counters(t.other).rgen;
  t.tree.apply(t.leaf, {}, 0);
  REQUIRE(t.tree.counters(t.root).rgen > root_before);
  REQUIRE(t.tree.counters(t.other).rgen == other_before);
}

TEST_CASE("rctime never goes back and a time in the future counts as now") {
  SmallTree t;
  t.tree.apply(t.leaf, {}, 9'000);
  t.tree.apply(t.leaf, {}, 3'000);
  REQUIRE(t.tree.counters(t.root).rctime_ns == 9'000);

  const tally::TimeNs now_ns = std::time(nullptr) * 1'000'000'000;
  constexpr tally::TimeNs year_ns = 31'556'952LL * 1'000'000'000;
  t.tree.apply(t.leaf, {}, now_ns + year_ns);
  REQUIRE(t.tree.counters(t.root).rctime_ns >= now_ns);
  REQUIRE(t.tree.counters(t.root).rctime_ns < now_ns + year_ns / 2);
}

TEST_CASE("a removed directory leaves nothing behind in its ancestors") {
  SmallTree t;
  t.tree.apply(t.leaf, one_file, 0);
  remove(t.tree, t.leaf);
  REQUIRE(t.tree.counters(t.middle).rbytes.count == 0);
  REQUIRE(t.tree.counters(t.middle).rsubdirs == 0);
  REQUIRE(t.tree.counters(t.root).rdisk.count == 24);
  REQUIRE_FALSE(t.tree.find({.ino = 3, .dev = 1}));
  REQUIRE(t.tree.counters(t.leaf).rbytes.count == 100);  // readable until it is released
  REQUIRE(t.tree.size() == 3);
  t.tree.release(t.leaf);
}

TEST_CASE("an inode is in the tree once, and a full tree says so") {
  DirTree tree(2);
  const DirIndex root = tree.insert({}, dir_stat(1)).value();
  REQUIRE(tree.insert(root, dir_stat(1)).error().value == EEXIST);
  REQUIRE(tree.insert(root, dir_stat(2)));
  REQUIRE(tree.insert(root, dir_stat(3)).error().value == ENOSPC);
  REQUIRE(tree.counters(root).subdirs == 1);
}

TEST_CASE("a removed directory makes room at once, even while its node is still read") {
  DirTree tree(2);
  const DirIndex root = tree.insert({}, dir_stat(1)).value();
  const DirIndex removed = tree.insert(root, dir_stat(2)).value();
  REQUIRE_FALSE(tree.reserve());
  remove(tree, removed);
  REQUIRE(tree.reserve());
  REQUIRE(tree.insert(root, dir_stat(3)));
  REQUIRE(tree.counters(removed).rdisk.count == 8);
}

TEST_CASE("a node is used again when its directory is removed and nobody holds it any more") {
  SmallTree t;
  const DirIndex held = t.tree.hold({.ino = 3, .dev = 1});
  REQUIRE(held == t.leaf);
  remove(t.tree, t.leaf);
  t.tree.release(t.leaf);
  REQUIRE(t.tree.nodes_held() == 4);
  t.tree.release(held);
  REQUIRE(t.tree.nodes_held() == 3);

  t.tree.release(t.other);
  REQUIRE(t.tree.nodes_held() == 3);
  REQUIRE(t.tree.counters(t.root).rsubdirs == 2);
  remove(t.tree, t.other);
  REQUIRE(t.tree.nodes_held() == 2);
  REQUIRE_FALSE(t.tree.hold({.ino = 4, .dev = 1}));
}

TEST_CASE("the node of a directory that was removed with files in it is not used again") {
  SmallTree t;
  REQUIRE(t.tree.apply_file(t.tree.place_in(t.leaf), {}, 0, +1));
  remove(t.tree, t.leaf);
  t.tree.release(t.leaf);
  REQUIRE(t.tree.nodes_held() == 4);
}

TEST_CASE("nothing is inserted below a removed directory, nor counted in it") {
  SmallTree t;
  remove(t.tree, t.leaf);
  REQUIRE(t.tree.insert(t.leaf, dir_stat(9)).error().value == ESTALE);
  t.tree.apply(t.leaf, one_file, 0);
  REQUIRE(t.tree.counters(t.leaf).rfiles == 0);
  REQUIRE_FALSE(t.tree.counters(t.root).suspect);
}

TEST_CASE("the last room is promised to one only, and comes back if nobody uses it") {
  DirTree tree(2);
  const DirIndex root = tree.insert({}, dir_stat(1)).value();
  {
    const tally::DirectoryRoom unused = tree.reserve();
    REQUIRE(unused);
    REQUIRE_FALSE(tree.reserve());
    REQUIRE_FALSE(tree.reserve());
  }
  const tally::DirectoryRoom room = tree.reserve();
  REQUIRE(room);
  REQUIRE(tree.insert(root, dir_stat(2)));
  REQUIRE_FALSE(tree.reserve());
}

TEST_CASE("what is transferred is missing from no common ancestor and moves between the others") {
  SmallTree t;
  REQUIRE(t.tree.apply_file(t.tree.place_in(t.leaf), one_file, 0, +1));
  REQUIRE(t.tree.transfer(t.tree.place_in(t.leaf), t.tree.place_in(t.other), one_file, 7'000));
  REQUIRE(t.tree.counters(t.leaf).files == 0);
  REQUIRE(t.tree.counters(t.other).files == 1);
  REQUIRE(t.tree.counters(t.leaf).rfiles == 0);
  REQUIRE(t.tree.counters(t.middle).rbytes.count == 0);
  REQUIRE(t.tree.counters(t.other).rbytes.count == 100);
  REQUIRE(t.tree.counters(t.root).rbytes.count == 100);
  REQUIRE(t.tree.counters(t.root).rctime_ns == 7'000);
}

TEST_CASE("a counter that would become negative makes its directories suspect and is not clamped") {
  SmallTree t;
  REQUIRE_FALSE(t.tree.counters(t.root).suspect);
  t.tree.apply(t.leaf, -one_file, 0);
  REQUIRE(t.tree.counters(t.root).suspect);
  REQUIRE(t.tree.counters(t.leaf).suspect);
  REQUIRE_FALSE(t.tree.counters(t.other).suspect);
  REQUIRE(t.tree.counters(t.leaf).rbytes.count == -100);
  REQUIRE(t.tree.apply_file(t.tree.place_in(t.leaf), {}, 0, -1));
  REQUIRE(t.tree.counters(t.leaf).files == -1);
  REQUIRE(t.tree.counters(t.leaf).entries() == -1);
}

TEST_CASE("a directory's own blocks are counted as they were last observed") {
  SmallTree t;
  t.tree.reconcile_own(t.leaf, dir_stat(3, 24, 6'000), false);
  REQUIRE(t.tree.counters(t.leaf).rdisk.count == 24);
  REQUIRE(t.tree.counters(t.root).rdisk.count == 48);
  REQUIRE(t.tree.counters(t.root).runique.count == 48);
  REQUIRE(t.tree.counters(t.root).rctime_ns == 6'000);
}

TEST_CASE("a directory seen again is no change, even with a ctime in the future") {
  SmallTree t;
  const tally::TimeNs next_year_ns = (std::time(nullptr) + 31'556'952LL) * 1'000'000'000;
  for (const tally::TimeNs ctime_ns : {tally::TimeNs{9'000}, next_year_ns}) {
    const uint64_t before = t.tree.counters(t.root).rgen;
    t.tree.reconcile_own(t.leaf, dir_stat(3, 8, ctime_ns), false);
    const uint64_t changed = t.tree.counters(t.root).rgen;
    REQUIRE(changed > before);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    t.tree.reconcile_own(t.leaf, dir_stat(3, 8, ctime_ns), false);
    REQUIRE(t.tree.counters(t.root).rgen == changed);
    t.tree.reconcile_own(t.leaf, dir_stat(3, 8, ctime_ns), true);
    REQUIRE(t.tree.counters(t.root).rgen > changed);
  }
}

TEST_CASE(
    "a watched directory is reported once per watch, by bytes that come or go anywhere below") {
  StaleList stale(8);
  SmallTree t(&stale);
  t.tree.watch(t.root, 77);
  t.tree.apply(t.other, one_file, 0);
  t.tree.apply(t.leaf, one_file, 0);
  uint64_t watcher = 0;
  REQUIRE(stale.pop(watcher));
  REQUIRE(watcher == 77);
  REQUIRE_FALSE(stale.pop(watcher));
  t.tree.watch(t.root, 77);
  t.tree.apply(t.leaf, one_file, 0);
  REQUIRE(stale.pop(watcher));
}

TEST_CASE("a watch that finds the list full is kept for the next change") {
  StaleList stale(2);
  SmallTree t(&stale);
  REQUIRE(stale.push(1));
  REQUIRE(stale.push(2));
  t.tree.watch(t.other, 77);
  t.tree.apply(t.other, one_file, 0);
  uint64_t watcher = 0;
  while (stale.pop(watcher))
    REQUIRE(watcher != 77);
  t.tree.apply(t.other, one_file, 0);
  REQUIRE(stale.pop(watcher));
  REQUIRE(watcher == 77);
}

TEST_CASE(
    "a directory is claimed by the first who comes, and suspects below it are left to that one") {
  SmallTree t;
  t.tree.mark_suspect(t.leaf);
  REQUIRE(t.tree.has_suspects_below(t.middle));
  REQUIRE_FALSE(t.tree.has_suspects_below(t.leaf));
  REQUIRE(t.tree.has_unclaimed_suspects_below(t.middle));
  REQUIRE(t.tree.claim(t.leaf));
  REQUIRE_FALSE(t.tree.claim(t.leaf));
  REQUIRE_FALSE(t.tree.has_unclaimed_suspects_below(t.middle));
  REQUIRE(t.tree.has_suspects_below(t.middle));
  t.tree.end_claim(t.leaf);
  REQUIRE(t.tree.has_unclaimed_suspects_below(t.middle));
}

TEST_CASE("a change that no size shows is reported to nobody") {
  StaleList stale(8);
  SmallTree t(&stale);
  t.tree.watch(t.root, 77);
  t.tree.apply(t.leaf, {}, 5'000);
  REQUIRE(t.tree.apply_file(t.tree.place_in(t.leaf), {.disk = {8}, .unique = {8}, .files = 1},
                            6'000, +1));
  uint64_t watcher = 0;
  REQUIRE_FALSE(stale.pop(watcher));
  t.tree.apply(t.leaf, {.bytes = {-1}}, 6'000);
  REQUIRE(stale.pop(watcher));
}

TEST_CASE("deltas of many threads all arrive, while others insert and remove directories") {
  DirTree tree(1'000);
  const DirIndex root = tree.insert({}, dir_stat(1)).value();
  const DirIndex leaf = tree.insert(tree.insert(root, dir_stat(2)).value(), dir_stat(3)).value();
  constexpr int deltas_per_thread = 20'000;
  std::atomic<bool> done = false;
  std::vector<std::thread> writers;
  for (int i = 0; i < 3; ++i)
    writers.emplace_back([&] {
      for (int n = 0; n < deltas_per_thread; ++n)
        tree.apply(leaf, one_file, n);
    });
  std::thread changer([&] {
    for (uint64_t ino = 100; !done; ++ino) {
      const DirIndex dir = tree.insert(leaf, dir_stat(ino)).value();
      remove(tree, dir);
      tree.release(dir);
    }
  });
  std::thread reader([&] {
    int64_t newest = 0;
    while (!done) {
      const int64_t seen = tree.counters(root).rbytes.count;
      if (seen < newest) std::abort();
      newest = seen;
    }
  });
  for (std::thread& writer : writers)
    writer.join();
  done = true;
  changer.join();
  reader.join();
  REQUIRE(tree.counters(root).rbytes.count == 3 * deltas_per_thread * 100);
  REQUIRE(tree.counters(root).rfiles == 3 * deltas_per_thread);
  REQUIRE(tree.counters(root).rsubdirs == 2);
  REQUIRE_FALSE(tree.counters(root).suspect);
}
