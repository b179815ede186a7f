#include "fs/invalidator.hpp"

#include <utility>

#include "fs/background_thread.hpp"

namespace tally::fs {

Invalidator::Invalidator(StaleList& stale, std::chrono::milliseconds pause, Notify notify)
    : stale_(stale), pause_(pause), notify_(std::move(notify)) {
  thread_ = start_background_thread("invalidator", [this] { run(); });
}

Invalidator::~Invalidator() { stop(); }

void Invalidator::stop() {
  stopping_ = true;
  stale_.wake();
  if (thread_.joinable()) thread_.join();
}

void Invalidator::run() {
  uint32_t seen = 0;
  while (!stopping_) {
    seen = stale_.wait(seen);
    uint64_t node_id = 0;
    while (!stopping_ && stale_.pop(node_id))
      notify_(node_id);
    if (!stopping_) std::this_thread::sleep_for(pause_);
  }
}

}  // namespace tally::fs
