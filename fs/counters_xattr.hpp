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

/// A counter's value as decimal text, without a trailing NUL.
class CounterText {
 public:
  CounterText(Counter counter, const DirCounters& counters, Bytes orphan_bytes);

  [[nodiscard]] std::string_view view() const { return {text_.data(), size_}; }

 private:
  void append_value(Counter counter, const DirCounters& counters, Bytes orphan_bytes);
  void append(std::string_view text);
  template <class Integer>
  void append_number(Integer number);
  void append_time(TimeNs time_ns);

  std::array<char, 40> text_;  // the longest is a 64-bit number of seconds with nine more digits
  std::size_t size_ = 0;
};

/// What listxattr says of a directory if asked to: the names of its counters, a NUL after each.
[[nodiscard]] std::string_view counter_name_list(bool is_root);

}  // namespace tally::fs
