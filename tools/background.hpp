#pragma once

#include "core/unique_fd.hpp"

namespace tally::tools {

/// How a daemon goes to the background: at once, but its parent ends only when the daemon is live,
/// or has failed, so that whoever called it knows which (mount(8) and init scripts rely on that).
///
/// Made before the first thread. In the parent the constructor doesn't return: it waits and exits
/// with 0, or with the daemon's own status. Until live() the child shares the terminal, for its
/// messages, and goes when the parent goes (Ctrl-C, a caller's timeout).
class Background {
 public:
  /// Throws std::system_error if there is no process to be had.
  Background();

  /// Leaves the terminal and the working directory, and lets the parent exit with 0.
  void live();

 private:
  UniqueFd to_parent_;
};

}  // namespace tally::tools
