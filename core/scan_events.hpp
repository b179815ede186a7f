#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "core/dir_tree.hpp"
#include "core/file_stat.hpp"
#include "core/name_arena.hpp"
#include "core/ring_buffer.hpp"

namespace tally {

/// One thing that the scanner has seen.
///
/// Of each directory there is one `enter`, after its parent's, then a `file` for each name of a
/// non-directory in it (an inode with several names comes several times), and one `leave`, after
/// those of all directories in it. Events of different directories are mixed.
struct ScanEvent {
  enum class Kind : uint8_t { enter, file, leave };

  Kind kind;
  DirIndex dir;          ///< entered or left, or the one with the file in it
  DirIndex parent = {};  ///< `enter`: null for the root
  NameRef name = {};     ///< `enter`: see Scanner::name(); null unless names are kept
  FileStat stat = {};    ///< of the directory for `enter`, of the file for `file`
};

/// The way of events from the scan's workers to one consumer, which runs at the same time.
///
/// When it is full, workers wait for the consumer: nothing is lost, and nothing is allocated. They
/// don't wait for ever: when nothing was taken for `patience`, the consumer is given up, that event
/// and all later ones are dropped, and lost() counts them.
///
/// Whoever waits sleeps for a moment and looks again; so neither side pays for wake-ups that the
/// other hardly ever needs. Thread-safe. Allocates nothing after construction.
class ScanEvents {
 public:
  /// `capacity` is a power of two. Throws std::bad_alloc.
  explicit ScanEvents(uint32_t capacity,
                      std::chrono::milliseconds patience = std::chrono::seconds(10))
      : ring_(capacity), patience_(patience) {}

  /// For the scanner.
  void push(const ScanEvent& event);
  void finish() { finished_.store(true, std::memory_order_release); }

  /// For the consumer: the next event if there is one.
  [[nodiscard]] bool pop(ScanEvent& event) { return ring_.try_pop(event); }

  /// For the consumer: the next event, waiting for it. False when the scan is over.
  [[nodiscard]] bool wait(ScanEvent& event);

  /// For the consumer: whether the scan is over. Events may still be there to be taken.
  [[nodiscard]] bool is_finished() const { return finished_.load(std::memory_order_acquire); }

  /// How many events were dropped because the consumer had stopped taking them.
  [[nodiscard]] uint64_t lost() const { return lost_.load(); }

 private:
  RingBuffer<ScanEvent> ring_;
  const std::chrono::milliseconds patience_;
  std::atomic<bool> finished_ = false;
  std::atomic<bool> given_up_ = false;
  std::atomic<uint64_t> lost_ = 0;
};

}  // namespace tally
