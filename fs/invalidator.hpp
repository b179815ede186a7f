#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "core/stale_list.hpp"

namespace tally::fs {

/// Tells the kernel which directories' attributes it remembers wrongly, from a thread of its own:
/// told from a request handler or with a lock held, the kernel may wait for a lock which the
/// request itself holds (fs/fuse/inode.c, fuse_reverse_inval_inode), for ever.
///
/// The first change is told at once; what follows is collected for `pause`, so that a storm of
/// changes is few bursts of notifications. Each directory is in the list once at a time.
class Invalidator {
 public:
  /// Called on the thread with what was pushed to the list: the node id of a directory.
  using Notify = std::function<void(uint64_t node_id)>;

  /// Starts the thread; `stale` must outlive it, and nobody else may drain it. Throws
  /// std::system_error.
  Invalidator(StaleList& stale, std::chrono::milliseconds pause, Notify notify);

  /// stop().
  ~Invalidator();
  Invalidator(const Invalidator&) = delete;
  Invalidator& operator=(const Invalidator&) = delete;

  /// Ends the thread; what is in the list and not told yet stays there.
  void stop();

 private:
  void run();

  StaleList& stale_;
  const std::chrono::milliseconds pause_;
  const Notify notify_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace tally::fs
