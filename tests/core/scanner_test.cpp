#include "core/scanner.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "core/ring.hpp"
#include "core/unique_fd.hpp"
#include "tests/core/scanned.hpp"
#include "tests/fake_tree.hpp"
#include "tests/naive_count.hpp"
#include "tests/temp_folder.hpp"

using namespace tally;
using namespace tally::test;
namespace stdfs = std::filesystem;

namespace {

void require_equal(const CountMap& scanned, const CountMap& expected) {
  REQUIRE(scanned.size() == expected.size());
  for (const auto& [path, counters] : expected) {
    INFO("directory " << path);
    REQUIRE(scanned.count(path) == 1);
    REQUIRE(scanned.at(path) == counters);
  }
}

/// While it lives no io_uring can be had.
struct WithoutRing {
  WithoutRing() { Ring::create_error_for_tests = ENOSYS; }
  ~WithoutRing() { Ring::create_error_for_tests = 0; }
};

/// A chain of directories below `top`, each named "d" and with `depth` more below the first.
class Chain {
 public:
  Chain(const std::string& top, int depth) : top_(open_directory(AT_FDCWD, top.c_str())) {
    UniqueFd deepest(::dup(top_.get()));
    for (int i = 0; i < depth; ++i) {
      if (::mkdirat(deepest.get(), "d", 0755) != 0) throw std::runtime_error("mkdir");
      deepest = open_directory(deepest.get(), "d");
    }
    const UniqueFd file(
        ::openat(deepest.get(), "file", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (::write(file.get(), "12345", 5) != 5) throw std::runtime_error("write");
  }

  /// Takes out one level after the other at the top, so that neither paths nor descriptors run out.
  ~Chain() {
    while (::renameat(top_.get(), "d/d", top_.get(), "next") == 0) {
      ::unlinkat(top_.get(), "d", AT_REMOVEDIR);
      ::renameat(top_.get(), "next", top_.get(), "d");
    }
    ::unlinkat(top_.get(), "d/file", 0);
    ::unlinkat(top_.get(), "d", AT_REMOVEDIR);
  }

 private:
  static UniqueFd open_directory(int dir_fd, const char* name) {
    UniqueFd fd(::openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) throw std::runtime_error("open a directory of the chain");
    return fd;
  }

  UniqueFd top_;
};

void require_chain(const std::string& top, int depth, const ScannerOptions& options) {
  const Scanned scanned(top, options, static_cast<uint32_t>(depth) + 1);
  REQUIRE(scanned.tree.size() == static_cast<uint32_t>(depth) + 1);
  int64_t below = depth;
  bool all_right = true;
  for (DirIndex dir = scanned.tree.root(); dir; dir = {scanned.tree.node(dir).first_child}) {
    const DirCounters counters = scanned.tree.counters(dir);
    all_right = all_right && counters.rsubdirs == below && counters.rbytes == Bytes{5} &&
                counters.rfiles == 1;
    --below;
  }
  CHECK(all_right);
  CHECK(below == -1);
  for (const uint64_t errors : scanned.summary.errors)
    CHECK(errors == 0);
}

}  // namespace

TEST_CASE("a scan counts what the naive count counts, in every directory of every shape of tree") {
  const uint64_t seed = seed_or(31);
  for (uint64_t round = 0; round < 3; ++round) {
    for (const TreeShape shape : all_tree_shapes) {
      INFO("shape " << name_of(shape) << ", seed " << seed + round);
      const TempFolder folder("scan");
      make_fake_tree(folder.path(), shape, seed + round, 500);
      const CountMap expected = naive_count(folder.path());
      for (const unsigned threads : {1u, 2u, 8u}) {
        for (const unsigned queue_depth : {0u, 1u, 64u}) {
          for (const uint32_t descriptors : {0u, 1u, 16u}) {
            INFO("threads " << threads << ", queue depth " << queue_depth << ", descriptors "
                            << descriptors);
            const std::size_t open_before = open_descriptors();
            {
              const Scanned scanned(
                  folder.path(),
                  {.threads = threads, .queue_depth = queue_depth, .descriptors_max = descriptors});
              require_equal(scanned.counts(), expected);
              REQUIRE_FALSE(scanned.tree.counters(scanned.tree.root()).suspect);
            }
            REQUIRE(open_descriptors() == open_before);
          }
        }
      }
    }
  }
}

TEST_CASE("a scan that lets names go when they are no longer needed counts the same") {
  const uint64_t seed = seed_or(34);
  INFO("seed " << seed);
  const TempFolder folder("scan");
  make_fake_tree(folder.path(), TreeShape::mixed, seed, 2'000);
  const Scanned expected(folder.path());
  const UniqueFd source(::open(folder.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (const uint32_t descriptors : {0u, 1u}) {
    DirTree tree(10'000);
    HardLinks links(tree, 10'000);
    Scanner scanner(tree, links, {.threads = 4, .descriptors_max = descriptors});
    const auto summary = scanner.run(source.get());
    REQUIRE(summary);
    REQUIRE(tree.size() == expected.tree.size());
    for (uint32_t i = 1; i <= tree.size(); ++i) {
      const DirCounters counters = tree.counters({i});
      const DirIndex same = expected.tree.find(tree.key_of({i}));
      REQUIRE(same);
      REQUIRE(counters.rbytes == expected.tree.counters(same).rbytes);
      REQUIRE(counters.rentries() == expected.tree.counters(same).rentries());
      REQUIRE(counters.runique == expected.tree.counters(same).runique);
    }
  }
}

TEST_CASE("where io_uring is not to be had the scan does without") {
  const uint64_t seed = seed_or(32);
  INFO("seed " << seed);
  const TempFolder folder("scan");
  make_fake_tree(folder.path(), TreeShape::mixed, seed);
  const WithoutRing without_ring;
  const Scanned scanned(folder.path(), {.threads = 2});
  require_equal(scanned.counts(), naive_count(folder.path()));
}

TEST_CASE("where io_uring has no memory in the middle of a scan the scan does without") {
  const uint64_t seed = seed_or(36);
  INFO("seed " << seed);
  const TempFolder folder("scan");
  make_fake_tree(folder.path(), TreeShape::mixed, seed, 2'000);
  const CountMap expected = naive_count(folder.path());
  const std::size_t open_before = open_descriptors();
  for (int round = 0; round < 3; ++round) {
    std::jthread shortage([] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      Ring::submit_error_for_tests = ENOMEM;
    });
    require_equal(Scanned(folder.path(), {.threads = 4}).counts(), expected);
    shortage.join();
    Ring::submit_error_for_tests = 0;
    REQUIRE(open_descriptors() == open_before);
  }
}

TEST_CASE("the summary adds up") {
  const uint64_t seed = seed_or(33);
  INFO("seed " << seed);
  const TempFolder folder("scan");
  make_fake_tree(folder.path(), TreeShape::hard_links, seed);
  const Scanned scanned(folder.path());
  int64_t names = 0;
  for (const auto& [path, counters] : naive_count(folder.path()))
    names += counters.entries;
  CHECK(scanned.summary.entries() == names);
  CHECK(scanned.summary.counts.directories == scanned.at("").rsubdirs);
  CHECK(scanned.summary.counts.linked_names > 0);
  CHECK(scanned.summary.counts.linked_names < scanned.summary.counts.files);
  CHECK(scanned.summary.seconds > 0);
}

TEST_CASE("an empty directory is scanned to its own blocks") {
  const TempFolder folder("scan");
  const Scanned scanned(folder.path(), {.threads = 4});
  require_equal(scanned.counts(), naive_count(folder.path()));
  CHECK(scanned.summary.entries() == 0);
}

TEST_CASE("a source that is no directory is refused") {
  const TempFolder folder("scan");
  std::ofstream(folder.path() + "/file") << "x";
  const UniqueFd fd(::open((folder.path() + "/file").c_str(), O_RDONLY | O_CLOEXEC));
  DirTree tree(10);
  HardLinks links(tree, 10);
  CHECK(Scanner(tree, links, {.threads = 2}).run(fd.get()).error() == Errno{ENOTDIR});
  CHECK(Scanner(tree, links, {.threads = 2}).run(-1).error() == Errno{EBADF});
}

TEST_CASE("a scanner that never runs ends its threads") {
  DirTree tree(10);
  HardLinks links(tree, 10);
  const Scanner scanner(tree, links, {.threads = 4});
  SUCCEED("and this test ends");
}

TEST_CASE("directories nested far beyond PATH_MAX are all counted") {
  const TempFolder folder("scan");
  const Chain chain(folder.path(), 10'000);
  require_chain(folder.path(), 10'000, {.threads = 2});
  require_chain(folder.path(), 10'000, {.threads = 2, .queue_depth = 0});
}

TEST_CASE("without descriptors to lend, paths beyond PATH_MAX are climbed in steps") {
  const TempFolder folder("scan");
  const Chain chain(folder.path(), 5'000);
  require_chain(folder.path(), 5'000, {.threads = 1, .descriptors_max = 1});
}

TEST_CASE("a scan keeps to its budget of descriptors") {
  const TempFolder folder("scan");
  // Four in each, five levels deep: going down leaves siblings behind at every level.
  std::vector<std::string> level{folder.path()};
  for (int depth = 0; depth < 5; ++depth) {
    std::vector<std::string> next;
    for (const std::string& above : level)
      for (const char* name : {"/a", "/b", "/c", "/d"}) {
        next.push_back(above + name);
        stdfs::create_directory(next.back());
      }
    level = std::move(next);
  }
  const auto peak_with = [&](uint32_t descriptors_max) {
    ScanEvents events(2);
    std::size_t peak = 0;
    std::thread consumer([&] {
      // With two events in flight, the workers stand still in between most of the time.
      for (ScanEvent event; events.wait(event);)
        peak = std::max(peak, open_descriptors());
    });
    const std::size_t before = open_descriptors();
    const Scanned scanned(
        folder.path(),
        {.threads = 1, .queue_depth = 0, .descriptors_max = descriptors_max, .events = &events});
    consumer.join();
    CHECK(scanned.at("").rsubdirs == 4 + 16 + 64 + 256 + 1024);
    return peak - before;
  };
  // Besides those it lends, a worker has the one that it is reading; the rest is the source's, and
  // the one through which descriptors are counted is in both figures.
  CHECK(peak_with(1) <= 3);
  CHECK(peak_with(3) <= 5);
  CHECK(peak_with(1000) > 5);
}

TEST_CASE("a name may be any bytes and 255 of them, also on a path from the root") {
  const TempFolder folder("scan");
  std::string path = folder.path();
  for (int level = 0; level < 20; ++level) {
    path += "/" + std::string(254, static_cast<char>(0x80 + level)) + "\n";
    if (path.size() < 3'800) stdfs::create_directory(path);
  }
  const CountMap expected = naive_count(folder.path());
  REQUIRE(expected.size() > 10);
  require_equal(Scanned(folder.path(), {.threads = 1, .descriptors_max = 1}).counts(), expected);
}

TEST_CASE("a directory with more entries than a buffer holds is read to its end") {
  const TempFolder folder("scan");
  for (int i = 0; i < 5'000; ++i) {
    const std::string name =
        folder.path() + "/name with more than a few bytes " + std::to_string(i);
    if (i % 10 == 0) {
      stdfs::create_directory(name);
    } else {
      std::ofstream(name) << i;
    }
  }
  sync_filesystem(folder.path());
  for (const unsigned threads : {1u, 4u})
    require_equal(Scanned(folder.path(), {.threads = threads}).counts(),
                  naive_count(folder.path()));
}

TEST_CASE("rctime is the newest change of anything below, be it an attribute of a file") {
  const TempFolder folder("scan");
  stdfs::create_directories(folder.path() + "/a/b");
  stdfs::create_directories(folder.path() + "/other");
  std::ofstream(folder.path() + "/a/b/file") << "x";
  // The clock that stamps inodes ticks every few milliseconds.
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  stdfs::permissions(folder.path() + "/a/b/file", stdfs::perms(0600));
  const TimeNs changed_ns = stat_at(AT_FDCWD, (folder.path() + "/a/b/file").c_str())->ctime_ns;
  const Scanned scanned(folder.path());
  for (const char* path : {"", "a", "a/b"})
    CHECK(scanned.at(path).rctime_ns == changed_ns);
  CHECK(scanned.at("other").rctime_ns < changed_ns);
}
