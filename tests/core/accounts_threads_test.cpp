#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "core/accounts.hpp"

using tally::Accounts;
using tally::DirIndex;
using tally::FileRecord;
using tally::FileStat;

namespace {

constexpr std::size_t dir_count = 12;
constexpr int operations_per_thread = 15'000;

struct Directories {
  std::array<DirIndex, dir_count> index;
  std::array<std::size_t, dir_count> parent;  // of all but 0, the root
};

struct File {
  uint64_t ino;
  int64_t blocks = 0;
  std::multiset<std::size_t> names = {};  // positions in Directories
  FileRecord record = {};

  [[nodiscard]] FileStat stat() const {
    return {.key = {.ino = ino, .dev = 1},
            .mode = S_IFREG | 0644,
            .nlink = static_cast<uint32_t>(names.size()),
            .size = {blocks * 500},
            .blocks = {blocks},
            .ctime_ns = 2'000};
  }
};

FileStat dir_stat(uint64_t ino) {
  return {.key = {.ino = ino, .dev = 1}, .mode = S_IFDIR | 0755, .nlink = 2, .ctime_ns = 1'000};
}

/// Creates, grows, links, moves and unlinks files of its own in directories that all threads share.
std::vector<File> change_files(Accounts& accounts, const Directories& dirs, uint64_t first_ino) {
  std::mt19937_64 random(first_ino);
  std::vector<File> files;
  for (int i = 0; i < operations_per_thread; ++i) {
    const std::size_t dir = random() % dir_count;
    if (files.size() < 40 && random() % 4 == 0) {
      File& file = files.emplace_back(File{.ino = first_ino + static_cast<uint64_t>(i)});
      file.names.insert(dir);
      accounts.name_added(file.record, dirs.index[dir], file.stat());
      continue;
    }
    if (files.empty()) continue;
    const std::size_t chosen = random() % files.size();
    File& file = files[chosen];
    const std::size_t name =
        *std::next(file.names.begin(), static_cast<long>(random() % file.names.size()));
    switch (random() % 4) {
      case 0:
        file.blocks = static_cast<int64_t>(random() % 1000);
        accounts.file_observed(file.record, file.stat(), true);
        break;
      case 1:
        file.names.insert(dir);
        accounts.name_added(file.record, dirs.index[dir], file.stat());
        break;
      case 2:
        file.names.erase(file.names.find(name));
        file.names.insert(dir);
        accounts.name_moved(file.record, dirs.index[name], dirs.index[dir], file.stat());
        break;
      default:
        file.names.erase(file.names.find(name));
        accounts.name_removed(file.record, dirs.index[name], file.stat(), false);
        if (file.names.empty()) files.erase(files.begin() + static_cast<long>(chosen));
    }
  }
  return files;
}

bool is_below(const Directories& dirs, std::size_t dir, std::size_t ancestor) {
  while (dir != ancestor && dir != 0)
    dir = dirs.parent[dir];
  return dir == ancestor;
}

void move_directories(Accounts& accounts, Directories& dirs, const std::atomic<bool>& done) {
  std::mt19937_64 random(1);
  while (!done) {
    const std::size_t dir = 1 + random() % (dir_count - 1);
    const std::size_t to = random() % dir_count;
    if (is_below(dirs, to, dir)) continue;
    dirs.parent[dir] = to;
    accounts.dir_moved(dirs.index[dir], dirs.index[to], dir_stat(1'000 + dir));
  }
}

/// Makes and removes directories of its own, with a file in each, below directories that move.
void make_and_remove_directories(Accounts& accounts, const Directories& dirs,
                                 const std::atomic<bool>& done) {
  std::mt19937_64 random(2);
  for (uint64_t ino = 10'000'000; !done; ino += 2) {
    const DirIndex made =
        accounts.dir_created(dirs.index[random() % dir_count], dir_stat(ino)).value();
    File file{.ino = ino + 1, .blocks = 3, .names = {0}};
    accounts.name_added(file.record, made, file.stat());
    accounts.dir_moved(made, dirs.index[random() % dir_count], dir_stat(ino));
    file.names.clear();
    accounts.name_removed(file.record, made, file.stat(), false);
    accounts.dir_removed(made);
    accounts.tree().release(made);
  }
}

}  // namespace

TEST_CASE("counters are exact after threads changed files while directories moved below them") {
  Accounts accounts(64, 4096);
  Directories dirs{};
  dirs.index[0] = accounts.tree().insert({}, dir_stat(1'000)).value();
  for (std::size_t i = 1; i < dir_count; ++i)
    dirs.index[i] = accounts.dir_created(dirs.index[0], dir_stat(1'000 + i)).value();

  std::atomic<bool> done = false;
  std::thread mover([&] { move_directories(accounts, dirs, done); });
  std::thread maker([&] { make_and_remove_directories(accounts, dirs, done); });
  std::array<std::vector<File>, 3> files;
  std::vector<std::thread> changers;
  for (std::size_t t = 0; t < files.size(); ++t)
    changers.emplace_back([&, t] { files[t] = change_files(accounts, dirs, 1'000'000 * (t + 1)); });
  for (std::thread& changer : changers)
    changer.join();
  done = true;
  mover.join();
  maker.join();

  for (std::size_t dir = 0; dir < dir_count; ++dir) {
    int64_t rfiles = 0;
    int64_t disk = 0;
    int64_t unique = 0;
    for (const auto& of_thread : files)
      for (const File& file : of_thread) {
        const auto below = static_cast<std::size_t>(
            std::count_if(file.names.begin(), file.names.end(),
                          [&](std::size_t name) { return is_below(dirs, name, dir); }));
        if (below == 0) continue;
        ++rfiles;
        disk += file.blocks;
        if (below == file.names.size()) unique += file.blocks;
      }
    const tally::DirCounters counted = accounts.tree().counters(dirs.index[dir]);
    REQUIRE(counted.rfiles == rfiles);
    REQUIRE(counted.rdisk.count == disk);
    REQUIRE(counted.runique.count == unique);
    REQUIRE_FALSE(counted.suspect);
    REQUIRE(accounts.tree().nodes_held() == dir_count);
  }
}
