#include "core/scan_events.hpp"

#include <thread>

namespace tally {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto pause_full = std::chrono::microseconds(100);
constexpr auto pause_empty = std::chrono::milliseconds(1);

}  // namespace

void ScanEvents::push(const ScanEvent& event) {
  if (!given_up_.load(std::memory_order_relaxed)) {
    if (ring_.try_push(event)) return;
    // A slot that comes free may go to another worker; so the time that counts is that of the whole
    // ring standing still, of which one worker's bad luck is a very safe estimate.
    const Clock::time_point deadline = Clock::now() + patience_;
    while (Clock::now() < deadline && !given_up_.load(std::memory_order_relaxed)) {
      std::this_thread::sleep_for(pause_full);
      if (ring_.try_push(event)) return;
    }
    given_up_ = true;
  }
  lost_.fetch_add(1);
}

bool ScanEvents::wait(ScanEvent& event) {
  while (true) {
    // In this order: what was pushed before the end is still seen.
    const bool finished = is_finished();
    if (pop(event)) return true;
    if (finished) return false;
    std::this_thread::sleep_for(pause_empty);
  }
}

}  // namespace tally
