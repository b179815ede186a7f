#include "core/aligned_buffer_pool.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

using tally::AlignedBufferPool;
using tally::BufferPoolError;

namespace {

AlignedBufferPool make_pool(std::size_t alignment, std::size_t size, std::size_t capacity) {
  auto pool = AlignedBufferPool::create(alignment, size, capacity);
  REQUIRE(pool);
  return std::move(*pool);
}

std::size_t resident_pages(std::span<std::byte> bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> resident((bytes.size() + page - 1) / page);
  REQUIRE(::mincore(bytes.data(), bytes.size(), resident.data()) == 0);
  return static_cast<std::size_t>(
      std::count_if(resident.begin(), resident.end(), [](unsigned char r) { return r & 1; }));
}

bool is_asleep(pid_t tid) {
  std::ifstream status("/proc/self/task/" + std::to_string(tid) + "/status");
  for (std::string word; status >> word;)
    if (word == "State:" && status >> word) return word == "S";
  return false;
}

}  // namespace

TEST_CASE("each senseless pool configuration is refused with an error and a text of its own") {
  const auto error = [](std::size_t alignment, std::size_t size, std::size_t capacity) {
    return AlignedBufferPool::create(alignment, size, capacity).error();
  };
  REQUIRE(error(0, 4096, 1) == BufferPoolError::alignment_not_power_of_two);
  REQUIRE(error(4095, 4095, 1) == BufferPoolError::alignment_not_power_of_two);
  REQUIRE(error(4096, 0, 1) == BufferPoolError::size_not_multiple_of_alignment);
  REQUIRE(error(4096, 2048, 1) == BufferPoolError::size_not_multiple_of_alignment);
  REQUIRE(error(4096, 4097, 1) == BufferPoolError::size_not_multiple_of_alignment);
  REQUIRE(error(4096, 4096, 0) == BufferPoolError::no_capacity);
  REQUIRE(error(4096, 4096, std::size_t{1} << 32) == BufferPoolError::too_large);
  REQUIRE(error(4096, std::size_t{1} << 50, 1 << 20) == BufferPoolError::too_large);
  REQUIRE(error(4096, std::size_t{1} << 48, 1) == BufferPoolError::too_large);

  std::set<std::string> texts;
  for (const auto each : {BufferPoolError::alignment_not_power_of_two,
                          BufferPoolError::size_not_multiple_of_alignment,
                          BufferPoolError::no_capacity, BufferPoolError::too_large})
    REQUIRE(texts.insert(tally::message(each)).second);
}

TEST_CASE("buffers are aligned, of full size and disjoint, also beyond a page's alignment") {
  for (const std::size_t alignment : {512UL, 4096UL, 65536UL, 2UL << 20}) {
    CAPTURE(alignment);
    auto pool = make_pool(alignment, 3 * alignment, 5);
    std::vector<AlignedBufferPool::Lease> leases;
    std::set<std::byte*> starts;
    for (int i = 0; i < 5; ++i) {
      leases.push_back(pool.lease());
      const auto bytes = leases.back().bytes();
      REQUIRE(bytes.size() == 3 * alignment);
      REQUIRE(reinterpret_cast<std::uintptr_t>(bytes.data()) % alignment == 0);
      bytes.front() = bytes.back() = std::byte{1};  // asan and the mapping's end object if too far
      starts.insert(bytes.data());
    }
    REQUIRE(starts.size() == 5);
    std::byte* previous = nullptr;
    for (std::byte* start : starts) {
      if (previous != nullptr) REQUIRE(start - previous >= static_cast<long>(3 * alignment));
      previous = start;
    }
  }
}

TEST_CASE("the buffer returned last is leased next, and counters follow") {
  auto pool = make_pool(4096, 8192, 3);
  auto a = pool.lease();
  auto b = pool.lease();
  REQUIRE(pool.leased_count() == 2);
  std::byte* const address_a = a.bytes().data();
  std::byte* const address_b = b.bytes().data();
  b.reset();
  a.reset();
  a.reset();  // a second time does nothing
  REQUIRE_FALSE(a);
  REQUIRE(a.bytes().empty());
  REQUIRE(pool.leased_count() == 0);
  REQUIRE(pool.leased_count_max() == 2);

  auto first = pool.lease();
  auto second = pool.lease();
  REQUIRE(first.bytes().data() == address_a);
  REQUIRE(second.bytes().data() == address_b);
  REQUIRE(pool.leased_count_max() == 2);

  // Moving hands the buffer over; assigning over a lease returns what it held.
  second = std::move(first);
  REQUIRE(pool.leased_count() == 1);
  REQUIRE(second.bytes().data() == address_a);
  REQUIRE(pool.lease().bytes().data() == address_b);
}

TEST_CASE("an exhausted pool gives nothing to try_lease until a buffer comes back") {
  auto pool = make_pool(512, 512, 2);
  auto a = pool.try_lease();
  auto b = pool.try_lease();
  REQUIRE(a);
  REQUIRE(b);
  REQUIRE_FALSE(pool.try_lease());
  REQUIRE(pool.leased_count() == 2);
  b.reset();
  REQUIRE(pool.try_lease());
}

TEST_CASE("a buffer costs memory only once it is leased and written") {
  constexpr std::size_t size = 64 * 4096;
  auto pool = make_pool(4096, size, 100);
  auto lease = pool.lease();
  // The pool is one run of buffers and the first one leased is the lowest.
  const std::span<std::byte> all(lease.bytes().data(), 100 * size);
  REQUIRE(resident_pages(all) == 0);
  std::memset(lease.bytes().data(), 1, size);
  REQUIRE(resident_pages(all) == 64);
  for (int i = 0; i < 1000; ++i) {
    lease.reset();
    lease = pool.lease();
    std::memset(lease.bytes().data(), 2, size);
  }
  REQUIRE(resident_pages(all) == 64);
}

TEST_CASE("a lease outlives its pool, and the last of them unmaps the buffers") {
  std::optional<AlignedBufferPool> pool = make_pool(4096, 4096, 2);
  auto a = pool->lease();
  auto b = pool->lease();
  std::byte* const address = a.bytes().data();
  pool.reset();
  std::memset(a.bytes().data(), 7, a.bytes().size());
  b.reset();
  REQUIRE(a.bytes()[4095] == std::byte{7});
  unsigned char resident;
  REQUIRE(::mincore(address, 4096, &resident) == 0);
  a.reset();
  REQUIRE(::mincore(address, 4096, &resident) == -1);
  REQUIRE(errno == ENOMEM);  // not mapped
}

TEST_CASE("a thread that finds the pool exhausted sleeps until another returns a buffer") {
  auto pool = make_pool(4096, 4096, 1);
  auto held = pool.lease();
  constexpr int waiting = 4;
  std::atomic<pid_t> tids[waiting] = {};
  std::atomic<int> served = 0;
  std::vector<std::thread> threads;
  for (auto& tid : tids) {
    threads.emplace_back([&] {
      tid = ::gettid();
      const auto mine = pool.lease();
      mine.bytes()[0] = std::byte{3};
      ++served;
    });
  }
  for (const auto& tid : tids)
    while (tid == 0 || !is_asleep(tid))
      std::this_thread::yield();
  REQUIRE(served == 0);
  held.reset();  // one return: each waiter wakes the next
  for (auto& thread : threads)
    thread.join();
  REQUIRE(served == waiting);
  REQUIRE(pool.leased_count() == 0);
  REQUIRE(pool.leased_count_max() == 1);
}

namespace {

// A buffer filled with a pattern of its own. Plain memory on purpose: tsan reports a second holder
// even when the pattern happens to survive.
class Marked {
 public:
  Marked(AlignedBufferPool::Lease lease, uint64_t pattern)
      : lease_(std::move(lease)), pattern_(pattern) {
    std::ranges::fill(words(), pattern_);
  }

  bool intact() const {
    return std::ranges::all_of(words(), [&](uint64_t word) { return word == pattern_; });
  }

 private:
  std::span<uint64_t> words() const {
    const auto bytes = lease_.bytes();
    return {reinterpret_cast<uint64_t*>(bytes.data()), bytes.size() / sizeof(uint64_t)};
  }

  AlignedBufferPool::Lease lease_;
  uint64_t pattern_;
};

}  // namespace

TEST_CASE("no buffer is leased twice at once, by eight threads that compete for five") {
  constexpr std::size_t capacity = 5;
  constexpr uint64_t thread_count = 8;
  constexpr uint64_t rounds = 100'000;
  auto pool = make_pool(64, 64, capacity);
  std::atomic<uint64_t> corrupted = 0;
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < thread_count; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint64_t round = 0; round < rounds; ++round) {
        // Taking two and returning the first while the second stays out is what ABA needs.
        std::optional<Marked> first(std::in_place, pool.lease(), thread << 32 | round << 1);
        std::optional<Marked> second;
        if (auto lease = pool.try_lease())
          second.emplace(std::move(*lease), thread << 32 | round << 1 | 1);
        if (round % 64 == thread) std::this_thread::yield();
        if (!first->intact()) ++corrupted;
        first.reset();
        if (round % 16 == thread) std::this_thread::yield();
        if (second && !second->intact()) ++corrupted;
      }
    });
  }
  for (auto& thread : threads)
    thread.join();
  REQUIRE(corrupted == 0);
  REQUIRE(pool.leased_count() == 0);
  REQUIRE(pool.leased_count_max() <= capacity);
  // All came back, each once.
  std::set<std::byte*> starts;
  std::vector<AlignedBufferPool::Lease> leases;
  while (auto lease = pool.try_lease()) {
    starts.insert(lease->bytes().data());
    leases.push_back(std::move(*lease));
    REQUIRE(leases.size() <= capacity);
  }
  REQUIRE(leases.size() == capacity);
  REQUIRE(starts.size() == capacity);
}
