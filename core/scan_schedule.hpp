#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "core/scan_queue.hpp"
#include "core/scan_state.hpp"

namespace tally {

// Which worker reads which directory, and how all of them learn that nothing is left.
//
// A directory is in exactly one place: in one worker's queue, or in the hands of one worker that
// has taken it out. Queues pass directories on under their own lock; no worker ever holds two of
// these locks, so that there is no order among them to break. All that is left to argue is that no
// worker sleeps while there is work for it, and that all workers end.
//
// Ending. `outstanding_` counts the directories that are in a queue or in some worker's hands.
// add() counts new ones before they can be seen in a queue, and while their parent, in the hands of
// the caller, still counts; done() counts a directory off when all its children are counted. So the
// counter can't touch zero early: it is zero exactly when no directory waits, none is being read,
// and none can therefore appear again. Moving directories (put_back(), a theft) doesn't change it.
//
// Sleeping. A worker that finds nothing to steal goes to sleep in four steps:
//
//     a. remember `signal_`      b. parked_ + 1      c. look into every queue, each under its lock,
//        and at outstanding_        d. sleep unless signal_ has changed since (a)
//
// and whoever leaves work for others takes three:
//
//     p. push, under the queue's lock      q. read parked_      r. if not 0: signal_ + 1, wake one
//
// Take the lock of the queue that was pushed to. Either (c) locks it after (p): then the sleeper
// sees the work and doesn't sleep. Or (c) locks it before (p): then (b), which precedes (c),
// happens before (q), which follows (p), by that same lock; the pusher reads parked_ > 0 and
// changes signal_. The change comes after (a), because (a) precedes (c); so (d) sees it, or is
// woken by it. There is no third order, hence no lost wake-up. The end is the same argument with
// outstanding_ in the place of the queue: the last done() changes signal_ after outstanding_ became
// 0 and wakes all; a sleeper that read outstanding_ > 0 in (c) has read signal_ before. These are
// all sequentially consistent.
//
// Two things are left out of (r) on purpose. A worker that leaves itself exactly one directory, to
// be taken by itself at once, wakes nobody: otherwise a chain of directories would be handed to and
// fro. And one wake-up is enough for many directories, because the thief pushes its loot to its own
// queue, which wakes the next.

/// Hands directories to workers. Thread-safe; each function is called with the caller's own number.
/// Allocates nothing after construction.
class ScanSchedule {
 public:
  ScanSchedule(ScanStates& states, unsigned worker_count);

  /// Whether the caller will go on reading for a while, or take from its queue at once.
  enum class Caller { reads_on, takes_next };

  /// Queues directories that were just found; the directory in which is not done() yet.
  void add(unsigned worker, const ScanChain& found, Caller caller);

  /// Queues directories again that the worker has taken, so that the first will be on top.
  void put_back(unsigned worker, std::span<const DirIndex> dirs);

  /// One directory that is open, or several that are not, of the worker's own or stolen from
  /// another. Empty when there is nothing just now.
  std::span<DirIndex> take(unsigned worker, std::span<DirIndex> room);

  /// Sleeps until there may be something to take. False when the scan is over.
  bool wait();

  /// A directory that was taken needs no more reading, and its children have been added.
  void done();

 private:
  bool steal(unsigned worker);
  void wake_one();
  [[nodiscard]] bool is_anything_queued();

  ScanStates& states_;
  std::vector<ScanQueue> queues_;
  alignas(64) std::atomic<uint64_t> outstanding_ = 0;
  alignas(64) std::atomic<uint32_t> signal_ = 0;
  std::atomic<uint32_t> parked_ = 0;
};

}  // namespace tally
