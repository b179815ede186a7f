#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/unique_fd.hpp"

namespace tally::test {

/// A program running as a child of the test. What it prints (standard output and error together)
/// is kept. It is killed when the object dies, and by the kernel when the test itself dies.
class ChildProcess {
 public:
  struct Settings {
    std::string working_directory = "";
    /// RLIMIT_NOFILE, soft and hard.
    std::optional<unsigned long> descriptors_max = std::nullopt;
    /// RLIMIT_FSIZE, in bytes.
    std::optional<struct rlimit> file_size = std::nullopt;
  };

  /// Starts `command` (found through PATH). Throws std::system_error when it cannot fork; a
  /// program that cannot be executed ends with status 127.
  explicit ChildProcess(const std::vector<std::string>& command)
      : ChildProcess(command, Settings()) {}
  ChildProcess(const std::vector<std::string>& command, const Settings& settings);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess();

  [[nodiscard]] pid_t pid() const { return pid_; }
  void signal(int number) const;

  /// Waits for the end: the exit status, or 128 + the signal that killed it; nothing when it is
  /// still running after `limit`.
  std::optional<int> wait(std::chrono::milliseconds limit);

  /// Everything printed so far.
  [[nodiscard]] std::string output() const;

 private:
  UniqueFd output_;
  UniqueFd pid_fd_;
  pid_t pid_ = -1;
  std::optional<int> status_;
};

struct Finished {
  int status;  ///< as ChildProcess::wait; -1 when it had to be killed after the time limit
  std::string output;
};

/// Runs a command to its end.
Finished run(const std::vector<std::string>& command, const std::string& working_directory = "",
             std::chrono::seconds limit = std::chrono::seconds(60));

/// Runs `action` in a forked child as this user, without other groups. What it returns is the
/// child's exit status; returns that as ChildProcess::wait does, or 127 if the child could not
/// become the user.
int run_as(uid_t user, gid_t group, const std::function<int()>& action);

/// Whether programs of these names are in PATH. When not, skips.
bool has_programs(const std::vector<std::string>& names);

}  // namespace tally::test
