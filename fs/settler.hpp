#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "core/thread_safety.hpp"

namespace tally::fs {

/// Has inodes looked at once more some time after they were written to and released: ext4 allocates
/// delayed blocks when it writes the file back, other filesystems give some back, and no request
/// tells.
///
/// Each node id that was added is given to the callback exactly once, on the settler's own thread,
/// `delay` after it was added or, if that takes its time, later; what is still waiting at stop()
/// gets its call then. add() is thread-safe and allocates nothing.
class Settler {
 public:
  enum class Call {
    due,      ///< the delay is over
    at_stop,  ///< nobody will ask for the totals any more
  };
  using Callback = std::function<void(uint64_t node_id, Call call)>;

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
  std::optional<Call> wait_for_next(Entry& next) TALLY_EXCLUDES(mutex_);

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
