#include "fs/invalidator.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

class Told {
 public:
  void operator()(uint64_t node_id) {
    {
      const std::lock_guard lock(mutex_);
      ids_.push_back(node_id);
      threads_.push_back(std::this_thread::get_id());
    }
    arrived_.notify_all();
  }

  std::vector<uint64_t> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] { return ids_.size() >= count; });
    return ids_;
  }

  bool always_on_another_thread() {
    const std::lock_guard lock(mutex_);
    return std::ranges::find(threads_, std::this_thread::get_id()) == threads_.end();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<uint64_t> ids_;
  std::vector<std::thread::id> threads_;
};

}  // namespace

TEST_CASE("the invalidator tells each stale directory, never on the thread that changed it") {
  tally::StaleList stale(16);
  Told told;
  REQUIRE(stale.push(3));  // before the thread exists
  tally::fs::Invalidator invalidator(stale, 1ms, [&](uint64_t id) { told(id); });
  CHECK(told.wait_for(1) == std::vector<uint64_t>{3});
  REQUIRE(stale.push(9));
  REQUIRE(stale.push(4));
  CHECK(told.wait_for(3) == std::vector<uint64_t>{3, 9, 4});
  CHECK(told.always_on_another_thread());
}

TEST_CASE("nothing pushed from several threads is lost by the invalidator") {
  constexpr uint64_t threads = 4;
  constexpr uint64_t per_thread = 500;
  tally::StaleList stale(64);
  Told told;
  tally::fs::Invalidator invalidator(stale, 0ms, [&](uint64_t id) { told(id); });
  std::vector<std::jthread> pushers;
  for (uint64_t thread = 0; thread < threads; ++thread)
    pushers.emplace_back([&, thread] {
      for (uint64_t i = 0; i < per_thread; ++i)
        while (!stale.push(thread * per_thread + i + 1))
          std::this_thread::yield();
    });
  auto ids = told.wait_for(threads * per_thread);
  std::ranges::sort(ids);
  CHECK(ids.size() == threads * per_thread);
  CHECK(std::ranges::adjacent_find(ids) == ids.end());
}

TEST_CASE("stop() ends an invalidator that waits, and one that was told nothing") {
  tally::StaleList stale(4);
  std::size_t told = 0;
  tally::fs::Invalidator invalidator(stale, 0ms, [&](uint64_t) { ++told; });
  invalidator.stop();
  REQUIRE(stale.push(1));
  invalidator.stop();
  CHECK(told == 0);
}
