#pragma once

#include <string>

#include "core/unique_fd.hpp"

namespace tally::test {

/// Takes a mount away again: when the object dies, and also when the test's process is killed, by a
/// process of its own that waits for that.
class MountGuard {
 public:
  /// Guards nothing.
  MountGuard() = default;

  /// Guards what will be, or has just been, mounted at `mountpoint`, and all that is mounted below
  /// it. Throws std::system_error when it cannot fork.
  explicit MountGuard(const std::string& mountpoint);
  MountGuard(MountGuard&&) noexcept = default;
  MountGuard& operator=(MountGuard&&) = delete;
  ~MountGuard();

  /// Unmounts, and fails the test (FAIL_CHECK) if somebody goes on using the mount.
  void unmount();

 private:
  std::string mountpoint_;
  UniqueFd lifeline_;  ///< its end is what the process waits for; closed on exec
};

/// A bind mount of `directory` (not of what is mounted below it) at `mountpoint`. Throws
/// std::system_error.
MountGuard bind_mount(const std::string& directory, const std::string& mountpoint);

}  // namespace tally::test
