#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/dir_tree.hpp"

namespace tally::fs {

/// What getxattr serves by name.
enum class Counter : uint8_t {
  rbytes,
  rdisk,
  rfiles,
  rsubdirs,
  rentries,
  entries,
  files,
  subdirs,
  rctime,
  rgen,
  runique,
  state,
  orphan_bytes,  ///< of the root only
};

/// Whether an extended attribute's name belongs to the counters, so that the lower filesystem is
/// not asked: all of user.tally.*, and those of ceph.dir.* that are counters.
[[nodiscard]] bool is_counter_name(std::string_view name);

/// The counter that goes by this name, nothing if there is none.
[[nodiscard]] std::optional<Counter> find_counter(std::string_view name);

/// What is the same for all directories of a mount.
struct MountCounters {
  Bytes orphan_bytes = {};
  std::optional<unsigned> scanned_percent = {};  ///< while the tree is scanned
  bool all_suspect = false;                      ///< something may have changed anywhere
};

/// A counter's value as decimal text, without a trailing NUL.
class CounterText {
 public:
  CounterText(Counter counter, const DirCounters& counters, const MountCounters& mount);

  [[nodiscard]] std::string_view view() const { return {text_.data(), size_}; }

 private:
  void append_value(Counter counter, const DirCounters& counters, const MountCounters& mount);
  void append_state(const DirCounters& counters, const MountCounters& mount);
  void append(std::string_view text);
  template <class Integer>
  void append_number(Integer number);
  void append_time(TimeNs time_ns);

  std::array<char, 40> text_;  // the longest is a 64-bit number of seconds with nine more digits
  std::size_t size_ = 0;
};

/// The attribute of the root that reports the last audit and, set to `audit_now`, starts one.
inline constexpr std::string_view audit_name = "user.tally.audit";
inline constexpr std::string_view audit_now = "now";

/// What listxattr says of a directory if asked to: the names of its counters, a NUL after each.
[[nodiscard]] std::string_view counter_name_list(bool is_root);

}  // namespace tally::fs
