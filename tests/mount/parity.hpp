#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "core/unique_fd.hpp"
#include "tests/mount/mount.hpp"

namespace tally::test {

/// What a scenario does and sees in its directory. It runs in a process of its own whose working
/// directory is that directory, so that paths are relative, and umask, descriptors and
/// credentials are its own. Catch2's macros must not be used inside a scenario: what it records
/// is compared afterwards.
class Recorder {
 public:
  explicit Recorder(int transcript_fd) : transcript_fd_(transcript_fd) {}

  /// Records what a system call returned, with errno when that is -1. To be called with the
  /// system call as the argument, so that errno is still its own. Returns `returned`.
  long call(const std::string& what, long returned);

  /// Records whether a call that returns a descriptor succeeded, and errno, but not its number.
  UniqueFd fd(const std::string& what, int returned);

  /// Records an observation.
  void note(const std::string& what, const std::string& seen);
  void note(const std::string& what, int64_t seen) { note(what, std::to_string(seen)); }

  /// Records type, permissions, owner, links and size (no directory's) of a path or descriptor.
  void stat(const std::string& path);
  void stat(const std::string& what, int fd);

  /// Records the whole content of a file.
  void content(const std::string& path);

 private:
  void write_line(const std::string& line);

  int transcript_fd_;
};

using Scenario = std::function<void(Recorder&)>;

struct Parity {
  /// Run first, as root.
  Scenario prepare;
  Scenario scenario;
  /// The user, group and supplementary groups that `scenario` runs with.
  uid_t user = 0;
  gid_t group = 0;
  std::vector<gid_t> supplementary_groups;
};

/// The parity test: runs a scenario in a new directory of the native filesystem and in a new
/// directory of the mount, and checks that both recorded the same, that both left the same tree,
/// that what the mount left is really on the lower filesystem, and that the counters are right.
void check_parity(const MountFolders& folders, const Mount& mount, const Parity& parity);
inline void check_parity(const MountFolders& folders, const Mount& mount,
                         const Scenario& scenario) {
  Parity parity;
  parity.scenario = scenario;
  check_parity(folders, mount, parity);
}

/// Everything below a directory, one line per entry: path, type, permissions, owner, links,
/// size and content, sorted by path.
std::vector<std::string> describe_tree(const std::string& directory);

/// Where two lists of lines differ, the first few: empty when they are the same.
std::vector<std::string> differences(const std::vector<std::string>& native,
                                     const std::vector<std::string>& mount);

/// Regular file made with `content`, through open, write and close. Throws std::system_error.
void write_file(const std::string& path, const std::string& content, mode_t mode = 0644);

/// A file's whole content. Throws std::system_error.
std::string read_file(const std::string& path);

}  // namespace tally::test
