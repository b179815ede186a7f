#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>

#include "core/unique_fd.hpp"

namespace tally::test {

/// Ends a mount that lives too long, so that a hang becomes a failure: kills its daemon and aborts
/// the connection. A process, not a thread: tests fork, and a child that is forked while another
/// thread holds the allocator's lock hangs on its first allocation.
class Watchdog {
 public:
  /// Throws std::system_error when it cannot fork.
  Watchdog(std::chrono::milliseconds limit, pid_t daemon, const std::string& abort_file);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() { stop(); }

  /// Call it before the daemon is waited for: its number may be another's afterwards. Returns
  /// whether the limit was exceeded.
  bool stop();

 private:
  pid_t pid_ = -1;
  UniqueFd lifeline_;
  UniqueFd watched_end_;  ///< open here too, so that writing to the other never raises SIGPIPE
  bool fired_ = false;
};

}  // namespace tally::test
