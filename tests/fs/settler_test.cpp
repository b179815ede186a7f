#include "fs/settler.hpp"

#include <condition_variable>
#include <mutex>
#include <vector>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;
using Call = tally::fs::Settler::Call;

namespace {

/// What a callback was called with; waits for calls instead of for time.
class Calls {
 public:
  void operator()(uint64_t node_id, Call call) {
    {
      const std::lock_guard lock(mutex_);
      ids_.push_back(node_id);
      due_ += call == Call::due ? 1 : 0;
    }
    arrived_.notify_all();
  }

  std::vector<uint64_t> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [&] { return ids_.size() >= count; });
    return ids_;
  }

  std::vector<uint64_t> so_far() { return wait_for(0); }

  /// How many of them were due.
  std::size_t due() {
    const std::lock_guard lock(mutex_);
    return due_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<uint64_t> ids_;
  std::size_t due_ = 0;
};

}  // namespace

TEST_CASE("the settler calls back with each id once, in order, and not before its time") {
  Calls calls;
  tally::fs::Settler settler(8, 20ms, [&](uint64_t id, Call call) { calls(id, call); });
  const auto start = std::chrono::steady_clock::now();
  REQUIRE(settler.add(7));
  REQUIRE(settler.add(5));
  REQUIRE(settler.add(7));
  CHECK(calls.wait_for(3) == std::vector<uint64_t>{7, 5, 7});
  CHECK(std::chrono::steady_clock::now() - start >= 20ms);
  CHECK(calls.due() == 3);
}

TEST_CASE("the settler works on when its ring wraps around") {
  Calls calls;
  tally::fs::Settler settler(3, 0ms, [&](uint64_t id, Call call) { calls(id, call); });
  std::vector<uint64_t> expected;
  for (uint64_t id = 1; id <= 20; ++id) {
    REQUIRE(settler.add(id));
    expected.push_back(id);
    REQUIRE(calls.wait_for(expected.size()) == expected);
  }
}

TEST_CASE("a full settler refuses, and stop() settles what is waiting without waiting for it") {
  Calls calls;
  tally::fs::Settler settler(2, 1h, [&](uint64_t id, Call call) { calls(id, call); });
  REQUIRE(settler.add(1));
  REQUIRE(settler.add(2));
  CHECK_FALSE(settler.add(3));
  CHECK(calls.so_far().empty());
  settler.stop();
  CHECK(calls.so_far() == std::vector<uint64_t>{1, 2});
  CHECK(calls.due() == 0);
  CHECK_FALSE(settler.add(4));
  settler.stop();
  CHECK(calls.so_far().size() == 2);
}
