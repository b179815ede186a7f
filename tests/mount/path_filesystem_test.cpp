#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

// Below the mount is a filesystem that can't be asked any more about an inode without a name.

using namespace std::chrono_literals;
using namespace tally::test;

namespace {

/// A path_filesystem mounted on the source of `folders`, for as long as this lives.
class PathFilesystem {
 public:
  explicit PathFilesystem(const MountFolders& folders)
      : mountpoint_(folders.source()),
        daemon_({PATH_FILESYSTEM_BINARY, folders.native(), folders.source()}) {
    wait_for_mount(mountpoint_, daemon_);
  }
  ~PathFilesystem() {
    ::umount2(mountpoint_.c_str(), MNT_DETACH);
    daemon_.wait(10s);
  }

 private:
  std::string mountpoint_;
  ChildProcess daemon_;
};

struct PathMount {
  MountFolders folders;
  PathFilesystem lower{folders};
  Mount mount{folders};
};

void check_exact(const Mount& mount) {
  CHECK(wrong_counters(mount, Compare::exact_parts) == std::vector<std::string>{});
}

/// Makes, renames and removes directories, each operation on one that fits.
void change_directories(const std::string& root, uint64_t seed, int steps) {
  std::mt19937_64 random(seed);
  std::vector<std::string> paths{root};
  const auto any = [&] { return paths[random() % paths.size()]; };
  for (int step = 0; step < steps; ++step) {
    const std::string from = any();
    const std::string to = any() + "/d" + std::to_string(step);
    const bool is_leaf = std::none_of(paths.begin(), paths.end(), [&](const std::string& path) {
      return path.starts_with(from + "/");
    });
    switch (random() % 3) {
      case 0:
        if (::mkdir(to.c_str(), 0755) == 0) paths.push_back(to);
        break;
      case 1:
        if (!is_leaf || from == root) break;
        CHECK(::rmdir(from.c_str()) == 0);
        std::erase(paths, from);
        break;
      default:
        if (!is_leaf || from == root || to.starts_with(from + "/")) break;
        CHECK(::rename(from.c_str(), to.c_str()) == 0);
        std::replace(paths.begin(), paths.end(), from, to);
    }
  }
}

}  // namespace

TEST_CASE("a removed file is counted no more, though the lower filesystem knows it no more") {
  if (!can_mount()) return;
  const PathMount t;
  write_file(t.mount.at("file"), std::string(10'000, 'x'));
  write_file(t.mount.at("other"), "y");
  CHECK(counter(t.mount.at(), "rbytes") == 10'001);
  REQUIRE(::unlink(t.mount.at("file").c_str()) == 0);
  check_exact(t.mount);
  write_file(t.mount.at("file"), "new");
  REQUIRE(::rename(t.mount.at("file").c_str(), t.mount.at("other").c_str()) == 0);
  CHECK(counter(t.mount.at(), "rbytes") == 3);
  check_exact(t.mount);
}

TEST_CASE("directories come, move and go while the lower filesystem knows none that is removed") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(std::random_device{}());
  INFO("seed " << seed);
  const PathMount t;
  REQUIRE(::mkdir(t.mount.at("replaced").c_str(), 0755) == 0);
  REQUIRE(::mkdir(t.mount.at("moved").c_str(), 0755) == 0);
  REQUIRE(::rename(t.mount.at("moved").c_str(), t.mount.at("replaced").c_str()) == 0);
  check_exact(t.mount);
  change_directories(t.mount.at("replaced"), seed, 3000);
  check_exact(t.mount);
}
