#include "core/scan_events.hpp"

#include <map>
#include <set>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/core/scanned.hpp"
#include "tests/fake_tree.hpp"
#include "tests/naive_count.hpp"
#include "tests/temp_folder.hpp"

using namespace tally;
using namespace tally::test;

namespace {

/// Counts a tree from nothing but the events of its scan, the plainest way.
class Reconstruction {
 public:
  explicit Reconstruction(const Scanner& scanner) : scanner_(scanner) {}

  void consume(const ScanEvent& event) {
    switch (event.kind) {
      case ScanEvent::Kind::enter:
        enter(event);
        break;
      case ScanEvent::Kind::file:
        add_file(event);
        break;
      case ScanEvent::Kind::leave:
        leave(event.dir);
        break;
    }
  }

  [[nodiscard]] const CountMap& counts() const { return counts_; }
  [[nodiscard]] bool in_order() const { return in_order_ && open_.empty(); }

 private:
  struct Inode {
    FileStat stat;
    uint32_t names_below = 0;
  };
  struct Directory {
    DirIndex parent;
    std::string path;
    FileStat stat;
    int64_t subdirs = 0, rsubdirs = 0, file_names = 0, directories_blocks = 0;
    TimeNs newest = 0;
    std::map<std::pair<uint32_t, uint64_t>, Inode> inodes;
  };

  void enter(const ScanEvent& event) {
    Directory fresh{.parent = event.parent, .path = {}, .stat = event.stat, .inodes = {}};
    if (event.parent) {
      in_order_ = in_order_ && open_.count(event.parent) == 1;
      const std::string& above = open_[event.parent].path;
      fresh.path = (above.empty() ? "" : above + "/") + scanner_.name(event.name);
    }
    in_order_ = open_.emplace(event.dir, fresh).second && in_order_;
  }

  void add_file(const ScanEvent& event) {
    in_order_ = in_order_ && open_.count(event.dir) == 1;
    Directory& dir = open_[event.dir];
    ++dir.file_names;
    dir.newest = std::max(dir.newest, event.stat.ctime_ns);
    Inode& inode = dir.inodes[{event.stat.key.dev, event.stat.key.ino}];
    inode.stat = event.stat;
    ++inode.names_below;
  }

  void leave(DirIndex index) {
    in_order_ = in_order_ && open_.count(index) == 1;
    Directory dir = open_[index];
    open_.erase(index);
    dir.newest = std::max(dir.newest, dir.stat.ctime_ns);
    dir.directories_blocks += dir.stat.blocks.count;
    Counters counters{.rsubdirs = dir.rsubdirs,
                      .entries = dir.file_names + dir.subdirs,
                      .files = dir.file_names,
                      .subdirs = dir.subdirs,
                      .rctime_ns = dir.newest,
                      .st_blocks = dir.stat.blocks.count};
    counters.rdisk = counters.runique = dir.directories_blocks * block_size_bytes;
    for (const auto& [key, inode] : dir.inodes) {
      ++counters.rfiles;
      counters.rbytes += inode.stat.size.count;
      counters.rdisk += inode.stat.blocks.count * block_size_bytes;
      if (inode.names_below == inode.stat.nlink)
        counters.runique += inode.stat.blocks.count * block_size_bytes;
    }
    counters.rentries = counters.rfiles + counters.rsubdirs;
    counts_[dir.path] = counters;
    if (!dir.parent) return;
    Directory& parent = open_.at(dir.parent);
    ++parent.subdirs;
    parent.rsubdirs += 1 + dir.rsubdirs;
    parent.directories_blocks += dir.directories_blocks;
    parent.newest = std::max(parent.newest, dir.newest);
    for (const auto& [key, inode] : dir.inodes) {
      Inode& merged = parent.inodes[key];
      merged.stat = inode.stat;
      merged.names_below += inode.names_below;
    }
  }

  const Scanner& scanner_;
  std::map<DirIndex, Directory> open_;
  CountMap counts_;
  bool in_order_ = true;
};

}  // namespace

TEST_CASE(
    "every directory's counters can be had from the events alone, even through a small ring") {
  const uint64_t seed = seed_or(51);
  INFO("seed " << seed);
  for (const TreeShape shape : all_tree_shapes) {
    INFO("shape " << name_of(shape));
    const TempFolder folder("events");
    make_fake_tree(folder.path(), shape, seed, 500);
    const CountMap expected = naive_count(folder.path());
    for (const uint32_t capacity : {8u, 1024u}) {
      ScanEvents events(capacity);
      Scanned scanned({.threads = 4, .events = &events});
      Reconstruction reconstruction(scanned.scanner);
      std::thread consumer([&] {
        for (ScanEvent event; events.wait(event);)
          reconstruction.consume(event);
      });
      scanned.scan(folder.path());
      consumer.join();
      CHECK(events.lost() == 0);
      CHECK(reconstruction.in_order());
      CHECK(reconstruction.counts() == expected);
      CHECK(scanned.counts() == expected);
    }
  }
}

TEST_CASE("workers wait for a consumer that is slow, and nothing is lost") {
  const TempFolder folder("events");
  make_fake_tree(folder.path(), TreeShape::wide, 52, 100);
  ScanEvents events(2);
  Scanned scanned({.threads = 2, .events = &events});
  int64_t files = 0;
  std::thread consumer([&] {
    for (ScanEvent event; events.wait(event);) {
      files += event.kind == ScanEvent::Kind::file ? 1 : 0;
      std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
  });
  scanned.scan(folder.path());
  consumer.join();
  CHECK(files == scanned.summary.counts.files);
  CHECK(events.lost() == 0);
}

TEST_CASE("a consumer that takes nothing is given up, the loss is counted, and the scan is exact") {
  const TempFolder folder("events");
  make_fake_tree(folder.path(), TreeShape::mixed, 53, 100);
  ScanEvents events(4, std::chrono::milliseconds(20));
  const Scanned scanned(folder.path(), {.threads = 2, .events = &events});
  CHECK(scanned.counts() == naive_count(folder.path()));
  uint64_t taken = 0;
  for (ScanEvent event; events.wait(event);)
    ++taken;
  const auto directories = static_cast<uint64_t>(scanned.summary.counts.directories) + 1;
  const auto files = static_cast<uint64_t>(scanned.summary.counts.files);
  CHECK(taken == 4);
  CHECK(events.lost() == 2 * directories + files - taken);
}
