#pragma once

#include <atomic>
#include <cstdint>

#include "core/dir_tree.hpp"
#include "core/mapping.hpp"
#include "core/name_arena.hpp"

namespace tally {

/// What the scan remembers of a directory between meeting it in its parent and the completion of
/// its subtree. One for each node of the tree, at the same index; memory only as far as nodes are
/// in use, and only until the scan ends.
///
/// Plain members belong to the worker that holds the directory at the time. They pass from worker
/// to worker through the lock of a ScanQueue, and to those who hold children likewise.
struct ScanState {
  enum class Mounted : uint8_t { unknown, like_parent, anew };

  NameRef name;        ///< in its parent; null for the root
  uint32_t above;      ///< neighbours in a ScanQueue or ScanChain: 0 at the ends
  uint32_t below;      ///< "
  int32_t descriptor;  ///< open, or a negative errno; not_opened at first
  bool lends;          ///< children are opened relative to `descriptor`, which stays until then
  bool gone;           ///< no longer there, or no longer what it was: to be taken out of the tree
  std::atomic<Mounted> mounted;      ///< for whoever meets the directory a second time
  std::atomic<uint32_t> unopened;    ///< children that are not opened, and one while it is read
  std::atomic<uint32_t> incomplete;  ///< children that are not complete, and one while it is read

  static constexpr int32_t not_opened = INT32_MIN;

  [[nodiscard]] bool is_open() const { return descriptor >= 0; }
};
static_assert(sizeof(ScanState) <= 32);

using ScanStates = ReservedArray<ScanState>;

/// Directories linked through their states from top to bottom. Owns nothing.
struct ScanChain {
  DirIndex top;
  DirIndex bottom;
  uint32_t count = 0;

  void push_top(ScanStates& states, DirIndex dir) {
    states[dir.value].above = 0;
    states[dir.value].below = top.value;
    if (top) {
      states[top.value].above = dir.value;
    } else {
      bottom = dir;
    }
    top = dir;
    ++count;
  }
};

}  // namespace tally
