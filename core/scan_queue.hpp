#pragma once

#include <algorithm>
#include <span>

#include "core/scan_state.hpp"
#include "core/thread_safety.hpp"

namespace tally {

/// One worker's directories that wait to be read. The worker pushes and takes at the top, so that
/// it goes down before it goes on, and what waits stays small; thieves take at the bottom, where
/// the oldest are, next to the root and with most below them (Blumofe and Leiserson, "Scheduling
/// multithreaded computations by work stealing", JACM 1999).
///
/// Directories at the top may be open already: such a one is taken alone; of those that are not, a
/// batch is taken to be opened together.
///
/// Thread-safe: one lock, which its owner takes about three times per directory and others only
/// when they have nothing to do.
class alignas(64) ScanQueue {
 public:
  /// More than this are not moved by one theft, which bounds how long the victim's lock is held.
  static constexpr uint32_t steal_max = 256;

  /// Puts a chain on top. Returns how many wait now.
  uint32_t push(ScanStates& states, const ScanChain& chain) TALLY_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (chain.count == 0) return content_.count;
    states[chain.bottom.value].below = content_.top.value;
    if (content_.top) {
      states[content_.top.value].above = chain.bottom.value;
    } else {
      content_.bottom = chain.bottom;
    }
    content_.top = chain.top;
    return content_.count += chain.count;
  }

  /// Takes from the top: one that is open, or as many as fit that are not. Returns the filled part.
  std::span<DirIndex> take(ScanStates& states, std::span<DirIndex> room) TALLY_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    std::size_t taken = 0;
    while (taken < room.size() && content_.top) {
      const ScanState& state = states[content_.top.value];
      if (state.is_open() && taken != 0) break;
      room[taken++] = content_.top;
      content_.top = {state.below};
      if (state.is_open()) break;
    }
    content_.count -= static_cast<uint32_t>(taken);
    if (content_.top) {
      states[content_.top.value].above = 0;
    } else {
      content_.bottom = {};
    }
    return room.first(taken);
  }

  /// Takes the older half off the bottom, rounded up, but at most steal_max.
  ScanChain steal_half(ScanStates& states) TALLY_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const uint32_t wanted = std::min((content_.count + 1) / 2, steal_max);
    if (wanted == 0) return {};
    ScanChain stolen{.top = content_.bottom, .bottom = content_.bottom, .count = wanted};
    for (uint32_t i = 1; i < wanted; ++i)
      stolen.top = {states[stolen.top.value].above};
    content_.count -= wanted;
    content_.bottom = {states[stolen.top.value].above};
    if (content_.bottom) {
      states[content_.bottom.value].below = 0;
    } else {
      content_.top = {};
    }
    states[stolen.top.value].above = 0;
    return stolen;
  }

  [[nodiscard]] bool empty() TALLY_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return content_.count == 0;
  }

 private:
  Mutex mutex_;
  ScanChain content_ TALLY_GUARDED_BY(mutex_);
};

}  // namespace tally
