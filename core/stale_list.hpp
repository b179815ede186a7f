#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "core/ring_buffer.hpp"

namespace tally {

/// Directories whose attributes somebody remembers and which have changed since: pushed by whoever
/// changes the tree, drained by the one thread that tells the rememberers.
class StaleList {
 public:
  /// `capacity` is a power of two. Throws std::bad_alloc.
  explicit StaleList(uint32_t capacity) : ring_(capacity) {}

  /// False when the list is full: the caller keeps its watch and tries again at the next change.
  bool push(uint64_t watcher) {
    if (!ring_.try_push(watcher)) return false;
    pushes_.fetch_add(1, std::memory_order_release);
    pushes_.notify_one();
    return true;
  }

  bool pop(uint64_t& watcher) { return ring_.try_pop(watcher); }

  /// Blocks until something was pushed since `seen` (a value this function returned, 0 at first).
  uint32_t wait(uint32_t seen) {
    pushes_.wait(seen, std::memory_order_acquire);
    return pushes_.load(std::memory_order_acquire);
  }

  /// Makes wait() return although nothing was pushed: for shutting down.
  void wake() {
    pushes_.fetch_add(1, std::memory_order_release);
    pushes_.notify_all();
  }

 private:
  RingBuffer<uint64_t> ring_;
  std::atomic<uint32_t> pushes_ = 0;
};

}  // namespace tally
