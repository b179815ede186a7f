#include "core/scan_schedule.hpp"

#include <algorithm>
#include <cassert>

namespace tally {

ScanSchedule::ScanSchedule(ScanStates& states, unsigned worker_count)
    : states_(states), queues_(worker_count) {}

void ScanSchedule::add(unsigned worker, const ScanChain& found, Caller caller) {
  outstanding_.fetch_add(found.count);
  const uint32_t waiting = queues_[worker].push(states_, found);
  if (waiting > (caller == Caller::takes_next ? 1u : 0u)) wake_one();
}

void ScanSchedule::put_back(unsigned worker, std::span<const DirIndex> dirs) {
  ScanChain chain;
  for (std::size_t i = dirs.size(); i != 0; --i)
    chain.push_top(states_, dirs[i - 1]);
  if (queues_[worker].push(states_, chain) > 0) wake_one();
}

std::span<DirIndex> ScanSchedule::take(unsigned worker, std::span<DirIndex> room) {
  std::span<DirIndex> taken = queues_[worker].take(states_, room);
  if (taken.empty() && steal(worker)) taken = queues_[worker].take(states_, room);
  return taken;
}

bool ScanSchedule::steal(unsigned worker) {
  for (std::size_t i = 1; i < queues_.size(); ++i) {
    const std::size_t victim = (worker + i) % queues_.size();
    const ScanChain loot = queues_[victim].steal_half(states_);
    if (loot.count == 0) continue;
    if (queues_[worker].push(states_, loot) > 1) wake_one();
    return true;
  }
  return false;
}

bool ScanSchedule::is_anything_queued() {
  return std::ranges::any_of(queues_, [](ScanQueue& queue) { return !queue.empty(); });
}

bool ScanSchedule::wait() {
  const uint32_t seen = signal_.load();
  parked_.fetch_add(1);
  if (!is_anything_queued() && outstanding_.load() != 0) signal_.wait(seen);
  parked_.fetch_sub(1);
  return outstanding_.load() != 0;
}

void ScanSchedule::wake_one() {
  if (parked_.load() == 0) return;
  signal_.fetch_add(1);
  signal_.notify_one();
}

void ScanSchedule::done() {
  const uint64_t before = outstanding_.fetch_sub(1);
  assert(before != 0);
  if (before != 1) return;
  signal_.fetch_add(1);
  signal_.notify_all();
}

}  // namespace tally
