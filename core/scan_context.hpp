#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/dir_tree.hpp"
#include "core/hard_links.hpp"
#include "core/name_arena.hpp"
#include "core/scan_errors.hpp"
#include "core/scan_events.hpp"
#include "core/scan_schedule.hpp"
#include "core/scan_state.hpp"
#include "core/thread_safety.hpp"

namespace tally {

/// How many directories may keep a descriptor for their children to be opened through.
/// Thread-safe.
class LendingBudget {
 public:
  explicit LendingBudget(uint32_t descriptors_max) : left_(descriptors_max) {}

  /// Takes as many as there are, at most `wanted`. Returns how many.
  [[nodiscard]] uint32_t take(uint32_t wanted) {
    uint32_t left = left_.load(std::memory_order_relaxed);
    uint32_t taken = 0;
    do
      taken = std::min(left, wanted);
    while (!left_.compare_exchange_weak(left, left - taken, std::memory_order_relaxed));
    return taken;
  }
  void give_back(uint32_t count = 1) { left_.fetch_add(count, std::memory_order_relaxed); }

 private:
  std::atomic<uint32_t> left_;
};

/// What the workers of one scan share.
struct ScanContext {
  ScanContext(DirTree& dir_tree, HardLinks& hard_links, unsigned worker_count,
              uint32_t descriptors_max, bool names_stay, ScanEvents* event_stream);

  /// Writes the path of `dir` below the root of the scan to the end of `room`, NUL-terminated; with
  /// `leaf`, of that name in `dir`. ENAMETOOLONG when it doesn't fit. For as long as the names on
  /// the way are kept: until the subtree is complete, or always with `keep_names`.
  Result<std::string_view> path_into(std::span<char> room, DirIndex dir,
                                     std::string_view leaf = {}) const;

  /// A directory is in the tree now, and the caller is about to read it or to queue it.
  void enter(DirIndex dir, NameRef name, const FileStat& stat, bool is_mount_root = false);

  /// The next directory, upwards from `dir` itself, on which something is mounted, or the root.
  [[nodiscard]] DirIndex mount_root_of(DirIndex dir) const;

  /// All below it is complete, and its parent has its totals.
  void leave(DirIndex dir) TALLY_EXCLUDES(gone_mutex);

  /// Takes directories out of the tree that turned out not to be there. After the workers have
  /// ended.
  void remove_gone() TALLY_EXCLUDES(gone_mutex);

  ScanState& state(DirIndex dir) { return states[dir.value]; }
  [[nodiscard]] const ScanState& state(DirIndex dir) const { return states[dir.value]; }

  DirTree& tree;
  HardLinks& links;
  ScanStates states;
  NameArena names;
  ScanSchedule schedule;
  ScanErrors errors;
  LendingBudget lending;
  const bool keep_names;
  ScanEvents* const events;  ///< null: nobody wants them, none are made
  int source_fd = -1;
  std::optional<uint32_t> only_device;  ///< entries of others are left out

  /// Directories to be taken out of the tree after the scan, parents above their children.
  Mutex gone_mutex;
  ScanChain gone TALLY_GUARDED_BY(gone_mutex);
};

}  // namespace tally
