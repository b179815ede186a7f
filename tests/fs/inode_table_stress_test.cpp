#include <fcntl.h>
#include <sys/stat.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include <catch2/catch.hpp>

#include "core/hot_path_guard.hpp"
#include "fs/inode_table.hpp"
#include "tests/fs/inode_fixture.hpp"

using tally::Errno;
using tally::fs::InodeRef;
using tally::fs::NodeId;
using tally::fs::PinnedInode;
using tally::test::InodeFixture;
using Reopen = InodeFixture::Reopen;

namespace {

constexpr unsigned thread_count = 4;

unsigned seed_from_environment() {
  const char* value = std::getenv("TALLYFS_SEED");
  return value != nullptr ? static_cast<unsigned>(std::stoul(value)) : std::random_device{}();
}

/// What the kernel and the handlers do to the table, at random. Catch2 asserts on one thread only,
/// so that wrong things are counted.
class Worker {
 public:
  Worker(InodeFixture& fixture, unsigned number, unsigned seed)
      : fixture_(fixture), number_(number), random_(seed + number) {}

  void run(int steps) {
    for (int step = 0; step < steps; ++step) {
      const unsigned choice = below(100);
      if (choice < 40)
        look_up_shared();
      else if (choice < 70)
        use();
      else if (choice < 90)
        forget();
      else
        replace_own_file(step);
    }
    while (!known_.empty())
      forget();
  }

  [[nodiscard]] const std::map<NodeId, tally::FileKey>& seen() const { return seen_; }
  [[nodiscard]] int mistakes() const { return mistakes_; }

 private:
  unsigned below(std::size_t limit) { return static_cast<unsigned>(random_() % limit); }
  void expect(bool truth) { mistakes_ += truth ? 0 : 1; }

  void remember(const PinnedInode& inode) {
    fixture_.table->add_lookup(*inode);
    known_.push_back(inode->id());
    // A node id is one inode's for ever.
    const auto [entry, inserted] = seen_.try_emplace(inode->id(), inode->key());
    expect(entry->second == inode->key());
    expect(tally::stat_fd(inode.fd())->key == inode->key());
  }

  void look_up_shared() {
    const std::string directory = "shared" + std::to_string(below(4));
    const auto parent = fixture_.find(directory);
    expect(parent.has_value());
    if (!parent) return;
    const auto inode = fixture_.find(*parent, std::to_string(below(40)));
    expect(inode.has_value());
    if (!inode) return;
    const auto lock = fixture_.table->lock(**parent, **inode);
    if (!(*inode)->accounted) {
      (*inode)->accounted = true;
      (*inode)->record.key = (*inode)->key();
    }
    expect((*inode)->record.key == (*inode)->key());
    remember(*inode);
  }

  void use() {
    if (known_.empty()) return;
    const NodeId id = known_[below(known_.size())];
    const auto inode = [&] {
      TALLY_HOT_PATH("pin an inode");
      return fixture_.table->pin(id);
    }();
    expect(inode.has_value());
    if (!inode) return;
    expect((*inode)->id() == id);
    expect(tally::stat_fd(inode->fd())->key == (*inode)->key());
    const InodeRef kept = inode->share();
    if (below(4) == 0) forget();
    expect(kept->id() == id);
  }

  void forget() {
    if (known_.empty()) return;
    std::swap(known_[below(known_.size())], known_.back());
    fixture_.table->forget(known_.back(), 1);
    known_.pop_back();
  }

  /// Creates, renames and unlinks a file, and uses it once more before it is forgotten.
  void replace_own_file(int step) {
    const std::string name = "own" + std::to_string(number_);
    const std::string renamed = name + "-" + std::to_string(step);
    fixture_.create_file(name);
    {
      const PinnedInode root = fixture_.root();
      const auto inode = fixture_.find(root, name);
      expect(inode.has_value());
      if (!inode) return;
      remember(*inode);
      expect(::renameat(root.fd(), name.c_str(), root.fd(), renamed.c_str()) == 0);
      fixture_.table->named(*inode, *root, renamed.c_str(), 1);
    }
    const NodeId id = known_.back();
    known_.pop_back();
    expect(fixture_.table->pin(id).has_value());
    fixture_.unlink(renamed);
    look_up_shared();
    const auto unlinked = fixture_.table->pin(id);
    expect(unlinked.has_value());
    if (unlinked) expect(tally::stat_fd(unlinked->fd())->nlink == 0);
    fixture_.table->forget(id, 1);
  }

  InodeFixture& fixture_;
  const unsigned number_;
  std::mt19937 random_;
  std::vector<NodeId> known_;
  std::map<NodeId, tally::FileKey> seen_;
  int mistakes_ = 0;
};

}  // namespace

TEST_CASE("threads that look up, use, replace and forget inodes under a tiny cap agree") {
  const unsigned seed = seed_from_environment();
  INFO("TALLYFS_SEED=" << seed);
  for (const Reopen reopen : {Reopen::by_handle, Reopen::by_name}) {
    InodeFixture fixture(32, 10'000, reopen);
    for (int directory = 0; directory < 4; ++directory) {
      const std::string name = "shared" + std::to_string(directory);
      fixture.create_directory(name);
      for (int file = 0; file < 40; ++file)
        fixture.create_file(name + "/" + std::to_string(file));
    }
    std::vector<Worker> workers;
    for (unsigned number = 0; number < thread_count; ++number)
      workers.emplace_back(fixture, number, seed);
    std::vector<std::thread> threads;
    for (Worker& worker : workers)
      threads.emplace_back([&] { worker.run(3000); });
    for (std::thread& thread : threads)
      thread.join();

    std::map<NodeId, tally::FileKey> seen;
    for (const Worker& worker : workers) {
      REQUIRE(worker.mistakes() == 0);
      for (const auto& [id, key] : worker.seen())
        REQUIRE(seen.try_emplace(id, key).first->second == key);
    }
    REQUIRE(seen.size() > 1000);
    REQUIRE(fixture.table->size() == 1);
    REQUIRE(fixture.budget.claimed() == 1);
  }
}

TEST_CASE("two threads that look up a new inode at once get one node id") {
  InodeFixture fixture(64);
  constexpr int rounds = 300;
  for (int i = 0; i < rounds; ++i)
    fixture.create_file(std::to_string(i));
  std::array<std::vector<NodeId>, thread_count> ids;
  std::atomic<unsigned> ready = 0;
  std::vector<std::thread> threads;
  for (auto& mine : ids)
    threads.emplace_back([&] {
      ready.fetch_add(1);
      while (ready.load() < thread_count)
        std::this_thread::yield();
      for (int i = 0; i < rounds; ++i)
        mine.push_back(fixture.lookup(std::to_string(i)));
    });
  for (std::thread& thread : threads)
    thread.join();
  for (const auto& mine : ids)
    REQUIRE(mine == ids[0]);
  REQUIRE(fixture.table->size() == rounds + 1);
  for (const NodeId id : ids[0])
    fixture.table->forget(id, thread_count);
  REQUIRE(fixture.table->size() == 1);
}

TEST_CASE("a pin taken while its inode is being evicted holds") {
  for (const Reopen reopen : {Reopen::by_handle, Reopen::by_name}) {
    InodeFixture fixture(8, 100, reopen);
    fixture.create_file("a");
    std::atomic<bool> ended = false;
    std::thread evictor([&] {
      while (!ended)
        fixture.evict_all();
    });
    int mistakes = 0;
    int pins = 0;
    while (pins < 100'000 && mistakes == 0) {
      // Evicting an inode takes longest the first time, so that it is a new one in each round. The
      // evictor has all descriptors at times.
      NodeId id = 0;
      if (const auto found = fixture.find("a")) {
        fixture.table->add_lookup(**found);
        id = (*found)->id();
      } else {
        if (found.error() != Errno{ENFILE}) ++mistakes;
        continue;
      }
      for (int again = 0; again < 3; ++again) {
        const auto inode = fixture.table->pin(id);
        if (inode) {
          const auto stat = tally::stat_fd(inode->fd());
          if (!stat || stat->key != (*inode)->key()) ++mistakes;
          ++pins;
        } else if (inode.error() != Errno{ENFILE}) {
          ++mistakes;
        }
      }
      fixture.table->forget(id, 1);
    }
    ended = true;
    evictor.join();
    REQUIRE(mistakes == 0);
    REQUIRE(fixture.budget.claimed() == 1);
  }
}

TEST_CASE("inode locks exclude each other however many are taken at once and in whatever order") {
  InodeFixture fixture(64);
  std::vector<InodeRef> inodes;
  for (int i = 0; i < 6; ++i) {
    fixture.create_file(std::to_string(i));
    inodes.push_back(fixture.find(std::to_string(i)).value().share());
  }
  constexpr unsigned rounds = 5000;
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < thread_count; ++number)
    threads.emplace_back([&, number] {
      std::mt19937 random(number);
      for (unsigned round = 0; round < rounds; ++round) {
        std::array<tally::fs::Inode*, 4> chosen{};
        for (auto& inode : chosen)
          inode = &*inodes[random() % inodes.size()];
        const auto lock = fixture.table->lock(chosen[0], chosen[1], chosen[2], chosen[3]);
        for (auto* inode : chosen)
          ++inode->open_handles;
      }
    });
  for (std::thread& thread : threads)
    thread.join();
  uint32_t sum = 0;
  for (const InodeRef& inode : inodes)
    sum += inode->open_handles;
  REQUIRE(sum == thread_count * rounds * 4);
}
