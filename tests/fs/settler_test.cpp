#include "fs/settler.hpp"

#include <condition_variable>
#include <mutex>
#include <vector>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace {

/// What a callback was called with; waits for calls instead of for time.
class Calls {
 public:
  void operator()(uint64_t node_id) {
    {
      const std::lock_guard lock(mutex_);
      ids_.push_back(node_id);
    }
    arrived_.notify_all();
  }

  std::vector<uint64_t> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] { return ids_.size() >= count; });
    return ids_;
  }

  std::vector<uint64_t> so_far() { return wait_for(0); }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<uint64_t> ids_;
};

}  // namespace

TEST_CASE("the settler calls back with each id once, in order, and not before its time") {
  Calls calls;
  tally::fs::Settler settler(8, 20ms, [&](uint64_t id) { calls(id); });
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(settler.add(7));
  REQUIRE(settler.add(5));
  REQUIRE(settler.add(7));
  CHECK(calls.wait_for(3) == std::vector<uint64_t>{7, 5, 7});
  CHECK(std::chrono::steady_clock::now() - start >= 20ms);
}

TEST_CASE("the settler works on when its ring wraps around") {
  Calls calls;
  tally::fs::Settler settler(3, 0ms, [&](uint64_t id) { calls(id); });
  std::vector<uint64_t> expected;
  for (uint64_t id = 1; id <= 20; ++id) {
    REQUIRE(settler.add(id));
    expected.push_back(id);
    REQUIRE(calls.wait_for(expected.size()) == expected);
  }
}

TEST_CASE("a full settler refuses, and stop() settles what is waiting without waiting for it") {
  Calls calls;
  tally::fs::Settler settler(2, 1h, [&](uint64_t id) { calls(id); });
  REQUIRE(settler.add(1));
  REQUIRE(settler.add(2));
  CHECK_FALSE(settler.add(3));
  CHECK(calls.so_far().empty());
  settler.stop();
  CHECK(calls.so_far() == std::vector<uint64_t>{1, 2});
  CHECK_FALSE(settler.add(4));
  settler.stop();
  CHECK(calls.so_far().size() == 2);
}
