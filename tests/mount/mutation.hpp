#pragma once

#include <fcntl.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

namespace tally::test {

/// A mount over a small tree, one change at a time: after each, every counter of every directory
/// must be right at once, and the changed directories and all their ancestors must say so.
///
///     a/b/c/file  100 bytes       x/y/other  200 bytes
///     a/b/c/twin  300 bytes, also named x/y/twin
///     a/b/c/empty, x/empty        empty directories
class Mutation {
 public:
  Mutation();

  /// Makes a change, which has to succeed, below the given directories (paths in the tree, each
  /// with its ancestors), and checks what counters must show. `rgen` must grow in all of them.
  void change(const std::string& what, const std::vector<std::string>& directories,
              const std::function<bool()>& action);

  /// `path` through the mount. The pointer is good until the end of the full expression.
  [[nodiscard]] std::string at(const std::string& path) const { return mount_.at(path); }

  /// Opens a file through the mount; fails the test when that fails.
  [[nodiscard]] UniqueFd open(const std::string& path, int flags, mode_t mode = 0644) const;

  [[nodiscard]] const Mount& mount() const { return mount_; }

 private:
  MountFolders folders_;
  Mount mount_;
};

}  // namespace tally::test
