#include "fs/settler.hpp"

#include <utility>

#include "fs/background_thread.hpp"

namespace tally::fs {

Settler::Settler(uint32_t capacity, std::chrono::milliseconds delay, Callback settle)
    : delay_(delay), settle_(std::move(settle)), entries_(capacity) {
  thread_ = start_background_thread("settler", [this] { run(); });
}

Settler::~Settler() { stop(); }

bool Settler::add(uint64_t node_id) {
  const Clock::time_point due = Clock::now() + delay_;
  const MutexLock lock(mutex_);
  if (stopping_ || waiting_ == entries_.size()) return false;
  entries_[(first_ + waiting_) % entries_.size()] = {.node_id = node_id, .due = due};
  ++waiting_;
  // Only an idle thread needs waking: a busy one wakes by itself when its first entry is due.
  if (waiting_ == 1) changed_.notify_one();
  return true;
}

void Settler::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Settler::run() {
  Entry next;
  while (const auto call = wait_for_next(next))
    settle_(next.node_id, *call);
}

/// Takes the first entry once its call is to be made. Nothing when there is none left and none will
/// come.
std::optional<Settler::Call> Settler::wait_for_next(Entry& next) {
  const MutexLock lock(mutex_);
  for (;;) {
    if (waiting_ == 0) {
      if (stopping_) return std::nullopt;
      changed_.wait(mutex_);
      continue;
    }
    next = entries_[first_];
    if (!stopping_ && Clock::now() < next.due) {
      static_cast<void>(changed_.wait_until(mutex_, next.due));
      continue;
    }
    first_ = (first_ + 1) % entries_.size();
    --waiting_;
    return stopping_ ? Call::at_stop : Call::due;
  }
}

}  // namespace tally::fs
