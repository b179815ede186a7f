#include <fcntl.h>

#include <atomic>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "fs/recounter.hpp"
#include "tests/fake_tree.hpp"
#include "tests/fs/filesystem_fixture.hpp"
#include "tests/fs/random_requests.hpp"
#include "tests/naive_count.hpp"
#include "tests/temp_folder.hpp"

// A tree is scanned while it is served: whatever is changed meanwhile, in directories that are
// scanned, being scanned or not scanned yet, every counter is right when no directory is suspect
// any more.

using tally::DirIndex;
using tally::DirTree;
using tally::UniqueFd;
using tally::fs::Filesystem;
using tally::fs::Recounter;
using namespace tally::test;

namespace {

constexpr std::size_t path_named_max = 3900;

/// A folder with a made-up tree, served, of which nothing is counted.
class Unscanned {
 public:
  Unscanned(TreeShape shape, uint64_t seed, int entries) {
    make_fake_tree(folder_.path(), shape, seed, entries);
    source_ = UniqueFd(::open(folder_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    filesystem_.emplace(source_.get(), tally::fs::FilesystemOptions());
    filesystem_->start();
  }

  Filesystem& operator*() { return *filesystem_; }
  [[nodiscard]] const std::string& path() const { return folder_.path(); }
  [[nodiscard]] DirTree& tree() { return filesystem_->accounts().tree(); }
  [[nodiscard]] bool has_suspects() { return tree().has_suspects(tree().root()); }

  /// The first counter that is not as a naive count finds it; empty if all are.
  std::string first_difference() {
    for (const auto& [path, counted] : naive_count(folder_.path())) {
      if (path.size() > path_named_max) continue;
      const std::string full = path.empty() ? folder_.path() : folder_.path() + "/" + path;
      const auto stat = tally::stat_at(AT_FDCWD, full.c_str());
      const DirIndex dir = stat ? tree().find(stat->key) : DirIndex();
      if (!dir) return path + " is not in the tree";
      const auto now = tree().counters(dir);
      if (now.suspect) return path + " is suspect";
      const auto differs = [&](const char* name, int64_t is, int64_t should) {
        return is == should ? std::string()
                            : path + ": " + name + " is " + std::to_string(is) + ", should be " +
                                  std::to_string(should);
      };
      for (const std::string& text : {differs("rbytes", now.rbytes.count, counted.rbytes),
                                      differs("rfiles", now.rfiles, counted.rfiles),
                                      differs("rsubdirs", now.rsubdirs, counted.rsubdirs),
                                      differs("files", now.files, counted.files),
                                      differs("subdirs", now.subdirs, counted.subdirs)})
        if (!text.empty()) return text;
    }
    return {};
  }

 private:
  TempFolder folder_{"unscanned", "/dev/shm"};
  UniqueFd source_;
  std::optional<Filesystem> filesystem_;
};

/// Scans while requests come between any two directories. Returns what is wrong afterwards.
std::string scan_with_requests(uint64_t seed) {
  std::mt19937_64 random(seed);
  const TreeShape shape = all_tree_shapes[random() % std::size(all_tree_shapes)];
  Unscanned served(shape, seed, 30 + static_cast<int>(random() % 200));
  std::string wrong;
  FilesystemFixture::on_request_thread([&] {
    RandomRequests requests(*served, served.path(), seed);
    Recounter recounter(*served);
    const uint64_t most = random() % 5;
    int left = 400;
    const auto pace = [&](uint64_t) {
      for (uint64_t i = random() % (most + 1); i > 0 && left > 0; --i, --left)
        requests.step();
      return true;
    };
    int walks = 0;
    while (served.has_suspects() && walks++ < 100)
      recounter.walk(Recounter::Scope::unscanned, pace);
    wrong = served.first_difference();
    if (!wrong.empty()) wrong += "\nafter\n" + requests.log();
  });
  return wrong;
}

}  // namespace

TEST_CASE("a scan is exact whatever requests come between its directories") {
  const uint64_t seed = seed_or(std::random_device{}());
  constexpr uint64_t scans = 300;
  std::cout << "scan races: seeds " << seed << " and the " << scans - 1 << " after it" << std::endl;
  for (uint64_t i = 0; i < scans; ++i) {
    INFO("replay with TALLYFS_SEED=" << seed + i);
    REQUIRE(scan_with_requests(seed + i) == "");
  }
}

TEST_CASE("a scan by several threads is exact whatever others change meanwhile") {
  const uint64_t seed = seed_or(std::random_device{}());
  INFO("seed " << seed);
  for (uint64_t i = 0; i < 20; ++i) {
    Unscanned served(TreeShape::mixed, seed + i, 300);
    std::atomic<bool> over = false;
    // In a directory of its own, as the kernel allows one change at a time in one directory.
    std::thread changes([&] {
      RandomRequests requests(*served, served.path(), seed + i);
      while (!over)
        requests.step();
    });
    std::vector<std::thread> scan;
    for (int thread = 0; thread < 3; ++thread)
      scan.emplace_back([&] {
        Recounter recounter(*served);
        for (int walks = 0; walks < 200 && served.has_suspects(); ++walks)
          recounter.walk(Recounter::Scope::unscanned, [](uint64_t) { return true; });
      });
    for (std::thread& thread : scan)
      thread.join();
    // And audits meanwhile, which change nothing.
    Recounter auditor(*served);
    for (int walks = 0; walks < 5; ++walks)
      auditor.walk(Recounter::Scope::everything, [](uint64_t) { return true; });
    over = true;
    changes.join();
    REQUIRE(served.first_difference() == "");
  }
}

TEST_CASE("threads that share a scan recount each directory once") {
  Unscanned served(TreeShape::mixed, seed_or(5), 3'000);
  std::vector<std::unique_ptr<Recounter>> recounters;
  std::vector<std::thread> scan;
  for (int thread = 0; thread < 4; ++thread) {
    Recounter& recounter = *recounters.emplace_back(std::make_unique<Recounter>(*served));
    scan.emplace_back([&] {
      while (served.has_suspects())
        recounter.walk(Recounter::Scope::unscanned, [](uint64_t) { return true; });
    });
  }
  for (std::thread& thread : scan)
    thread.join();
  uint64_t recounted = 0;
  for (const auto& recounter : recounters)
    recounted += recounter->directories();
  REQUIRE(recounted == served.tree().size());
  REQUIRE(served.first_difference() == "");
}
