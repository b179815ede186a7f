#pragma once

#include "core/unique_fd.hpp"

namespace tally::test {

/// Switches FUSE over io_uring on in the kernel, and back to what it was at the end. One at a time:
/// others wait. The module parameter is the whole machine's: a mount made meanwhile by somebody
/// else, with uring=auto, uses it too, which changes nothing that it shows.
class UringEnabled {
 public:
  UringEnabled();
  ~UringEnabled();
  UringEnabled(const UringEnabled&) = delete;
  UringEnabled& operator=(const UringEnabled&) = delete;

  [[nodiscard]] bool is_on() const { return is_on_; }

 private:
  bool set(char value) const;

  UniqueFd parameter_;
  char former_ = 'N';
  bool is_on_ = false;
};

/// Whether mounts can be served over io_uring now. When not, skips, unless the kernel has none of
/// it.
bool can_use(const UringEnabled& enabled);

}  // namespace tally::test
