#include "core/node_pool.hpp"

#include <unistd.h>

#include <array>
#include <atomic>
#include <fstream>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "core/hot_path_guard.hpp"
#include "tests/fake_tree.hpp"

namespace {

struct Node {
  uint32_t number = 7;
  uint32_t padding = 0;
  uint64_t zero;  // no initialiser: zero by value-initialisation alone
};
using Pool = tally::NodePool<Node, struct NodeTag>;
using Index = Pool::Index;

/// Runs `body(thread number)` on `count` threads at once and waits for them.
template <class Body>
void run_threads(uint32_t count, Body body) {
  std::vector<std::jthread> threads;
  for (uint32_t i = 0; i < count; ++i)
    threads.emplace_back(body, i);
}

/// Resident memory of this process (statm, in proc(5)).
std::size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total_pages = 0;
  std::size_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  REQUIRE(resident_pages > 0);
  return resident_pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

TEST_CASE("a node pool hands out every index from 1 to its capacity once, then ENOSPC") {
  Pool pool(100);
  REQUIRE(pool.capacity() == 100);
  std::vector<bool> seen(101);
  for (uint32_t i = 0; i < 100; ++i) {
    REQUIRE(pool.size() == i);
    const auto index = pool.acquire();
    REQUIRE(index);
    REQUIRE(index->value >= 1);
    REQUIRE(index->value <= 100);
    REQUIRE_FALSE(seen[index->value]);
    seen[index->value] = true;
  }
  for (int i = 0; i < 1000; ++i)
    REQUIRE(pool.acquire() == tally::failure(ENOSPC));
  REQUIRE(pool.size() == 100);
  REQUIRE(pool.high_water() == 100);
}

TEST_CASE("a node pool without capacity is refused") {
  REQUIRE_THROWS_AS(Pool(0), std::invalid_argument);
}

TEST_CASE("an exhausted node pool hands out what is released, and nothing else") {
  Pool pool(3);
  std::array<Index, 3> held{*pool.acquire(), *pool.acquire(), *pool.acquire()};
  REQUIRE(pool.release(held[1]));
  REQUIRE(pool.size() == 2);
  REQUIRE(pool.acquire() == held[1]);
  REQUIRE(pool.acquire() == tally::failure(ENOSPC));
}

TEST_CASE("a node pool uses released slots again before it touches fresh ones") {
  Pool pool(1000);
  const Index first = *pool.acquire();
  const Index second = *pool.acquire();
  REQUIRE(pool.release(first));
  REQUIRE(pool.release(second));
  REQUIRE(pool.size() == 0);
  for (int i = 0; i < 100; ++i) {
    const Index one = *pool.acquire();
    const Index other = *pool.acquire();
    REQUIRE(one != other);
    REQUIRE(pool.release(one));
    REQUIRE(pool.release(other));
  }
  REQUIRE(pool.high_water() == 2);
}

TEST_CASE("a node is value-initialised each time it is acquired") {
  Pool pool(1);
  for (int i = 0; i < 3; ++i) {
    const Index index = *pool.acquire();
    REQUIRE(pool[index].number == 7);
    REQUIRE(pool[index].zero == 0);
    pool[index] = {.number = 0xffffffff, .padding = 0xffffffff, .zero = 1};
    REQUIRE(std::as_const(pool)[index].zero == 1);
    REQUIRE(pool.release(index));
  }
}

TEST_CASE("a node pool refuses to release what nobody holds") {
  Pool pool(200);
  const Index held = *pool.acquire();
  const Index released = *pool.acquire();
  REQUIRE(pool.release(released));
  REQUIRE(pool.release(released) == tally::failure(EINVAL));    // released already
  REQUIRE(pool.release(Index{}) == tally::failure(EINVAL));     // null
  REQUIRE(pool.release(Index{3}) == tally::failure(EINVAL));    // never handed out
  REQUIRE(pool.release(Index{200}) == tally::failure(EINVAL));  // the same, at the end
  REQUIRE(pool.release(Index{201}) == tally::failure(EINVAL));  // out of range
  REQUIRE(pool.release(Index{UINT32_MAX}) == tally::failure(EINVAL));

  // None of this has changed anything: the remaining 199 come out, each once.
  REQUIRE(pool.size() == 1);
  std::vector<bool> seen(201);
  seen[held.value] = true;
  while (const auto index = pool.acquire()) {
    REQUIRE_FALSE(seen[index->value]);
    seen[index->value] = true;
  }
  REQUIRE(pool.size() == 200);
}

TEST_CASE("disposal runs for good handles only, before the slot can be acquired again") {
  Pool pool(1);
  const Index index = *pool.acquire();
  int disposed = 0;
  const auto dispose = [&](Node& node) {
    ++disposed;
    CHECK(&node == &pool[index]);
    CHECK(pool.acquire() == tally::failure(ENOSPC));
  };
  REQUIRE(pool.release(index, dispose));
  REQUIRE(pool.release(index, dispose) == tally::failure(EINVAL));
  REQUIRE(disposed == 1);
}

TEST_CASE("a pool of 100 million nodes takes memory for the nodes in use only") {
  struct LargeNode {
    std::array<std::byte, 128> bytes;
  };
  constexpr std::size_t mib = 1024 * 1024;
  // Sanitizers keep books on the address space themselves; the pool alone would be 12.8 GB.
  const std::size_t before = resident_bytes();
  tally::NodePool<LargeNode, LargeNode> pool(100'000'000);
  const std::size_t reserved = resident_bytes();
  REQUIRE(reserved < before + 8 * mib);
  for (int i = 0; i < 100'000; ++i) {
    const auto index = pool.acquire();
    pool[*index].bytes.fill(std::byte{1});
  }
  const std::size_t used = resident_bytes();
  REQUIRE(used > reserved + 11 * mib);
  REQUIRE(used < before + 128 * mib);
}

TEST_CASE("threads that drain a node pool together get exactly its capacity, each index once") {
  for (int round = 0; round < 100; ++round) {
    constexpr uint32_t capacity = 1000;
    Pool pool(capacity);
    std::vector<std::atomic<uint32_t>> times_handed_out(capacity + 1);
    run_threads(4, [&](uint32_t) {
      while (const auto index = pool.acquire())
        ++times_handed_out[index->value];
    });
    for (uint32_t i = 1; i <= capacity; ++i)
      REQUIRE(times_handed_out[i] == 1);
    REQUIRE(pool.size() == capacity);
  }
}

TEST_CASE("threads that acquire and release at random never hold the same node") {
  const uint64_t seed = tally::test::seed_or(1);
  INFO("seed " << seed);
  constexpr uint32_t capacity = 64;  // 4 threads of up to 32 each: full and empty again and again
  Pool pool(capacity);
  std::vector<std::atomic<uint32_t>> holder(capacity + 1);
  std::atomic<int> shared_nodes = 0;
  std::atomic<int> refused_releases = 0;
  std::atomic<int> overwritten_nodes = 0;
  run_threads(4, [&](uint32_t thread) {
    std::mt19937_64 random(seed + thread);
    std::vector<Index> held;
    for (int step = 0; step < 50'000; ++step) {
      if (held.size() < 32 && random() % 2 == 0) {
        const auto index = pool.acquire();
        if (!index) continue;
        if (holder[index->value].exchange(thread + 1) != 0) ++shared_nodes;
        pool[*index].number = thread;
        held.push_back(*index);
      } else if (!held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        const Index index = held.back();
        held.pop_back();
        if (pool[index].number != thread) ++overwritten_nodes;
        holder[index.value] = 0;
        if (!pool.release(index)) ++refused_releases;
      }
    }
    for (const Index index : held) {
      holder[index.value] = 0;
      if (!pool.release(index)) ++refused_releases;
    }
  });
  REQUIRE(shared_nodes == 0);
  REQUIRE(overwritten_nodes == 0);
  REQUIRE(refused_releases == 0);
  REQUIRE(pool.size() == 0);
  REQUIRE(pool.high_water() <= capacity);
}

TEST_CASE("a node pool with a slot for each thread is never exhausted when each holds one") {
  std::atomic<int> refusals = 0;
  for (int round = 0; round < 500; ++round) {
    Pool pool(4);
    run_threads(4, [&](uint32_t) {
      for (int step = 0; step < 20; ++step) {
        const auto index = pool.acquire();
        if (!index || !pool.release(*index)) ++refusals;
      }
    });
  }
  REQUIRE(refusals == 0);
}

TEST_CASE("of threads that release the same node at the same time, exactly one succeeds") {
  constexpr uint32_t capacity = 20'000;
  Pool pool(capacity);
  while (pool.acquire()) {
  }
  std::atomic<uint32_t> releases = 0;
  std::atomic<uint32_t> ready = 0;
  run_threads(2, [&](uint32_t) {
    ++ready;
    while (ready != 2)
      std::this_thread::yield();
    for (uint32_t i = 1; i <= capacity; ++i)
      if (pool.release(Index{i})) ++releases;
  });
  REQUIRE(releases == capacity);
  REQUIRE(pool.size() == 0);
}

TEST_CASE("a node pool allocates nothing after construction") {
  Pool pool(2);
  bool as_expected = true;
  {
    TALLY_HOT_PATH("node pool");
    const auto one = pool.acquire();
    const auto two = pool.acquire();
    as_expected = one && two && !pool.acquire() && pool.release(*one) && !pool.release(*one) &&
                  pool.acquire() == one;
  }
  REQUIRE(as_expected);
}
