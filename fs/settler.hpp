#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "core/thread_safety.hpp"

namespace tally::fs {

/// Looks at inodes once more some time after they were written to and released: ext4 allocates
/// delayed blocks after about 30 s at the latest (dirty_expire_centisecs), XFS gives preallocated
/// ones back, and no request tells.
///
/// Each node id that was added is given to the callback exactly once, on the settler's own thread,
/// `delay` after it was added; what is still waiting at stop() gets its call then. add() is
/// thread-safe and allocates nothing.
class Settler {
 public:
  using Callback = std::function<void(uint64_t node_id)>;

  /// Starts the thread. Room for `capacity` waiting ids. Throws std::bad_alloc, std::system_error.
  Settler(uint32_t capacity, std::chrono::milliseconds delay, Callback settle);

  /// stop().
  ~Settler();
  Settler(const Settler&) = delete;
  Settler& operator=(const Settler&) = delete;

  /// False, with nothing done, when as many as the capacity are waiting or after stop(): the caller
  /// settles by itself, at once.
  [[nodiscard]] bool add(uint64_t node_id) TALLY_EXCLUDES(mutex_);

  /// Ends the thread after the callback got all that is waiting, without waiting for its time.
  void stop() TALLY_EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    uint64_t node_id;
    Clock::time_point due;
  };

  void run() TALLY_EXCLUDES(mutex_);
  bool wait_for_next(Entry& next) TALLY_EXCLUDES(mutex_);

  const std::chrono::milliseconds delay_;
  const Callback settle_;
  Mutex mutex_;
  CondVar changed_;
  // A ring. The delay is the same for all, so that the oldest entry is always the first due.
  std::vector<Entry> entries_ TALLY_GUARDED_BY(mutex_);
  std::size_t first_ TALLY_GUARDED_BY(mutex_) = 0;
  std::size_t waiting_ TALLY_GUARDED_BY(mutex_) = 0;
  bool stopping_ TALLY_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tally::fs
