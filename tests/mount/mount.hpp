#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/unique_fd.hpp"
#include "tests/mount/child_process.hpp"
#include "tests/mount/watchdog.hpp"
#include "tests/temp_folder.hpp"

namespace tally::test {

/// Whether this process can mount FUSE filesystems. When not, skips. Every test here starts with
/// `if (!can_mount()) return;`.
bool can_mount();

/// A temporary folder with an empty `source`, an empty `mountpoint` and an empty `native`, all on
/// one filesystem and open to every user.
class MountFolders {
 public:
  /// Below `parent`, or where TempFolder puts its folders.
  explicit MountFolders(const std::string& parent = "");

  /// `path` below the source, the mount point or the native twin.
  [[nodiscard]] std::string source(const std::string& path = "") const;
  [[nodiscard]] std::string mountpoint(const std::string& path = "") const;
  [[nodiscard]] std::string native(const std::string& path = "") const;
  [[nodiscard]] const std::string& folder() const { return folder_.path(); }

 private:
  TempFolder folder_;
};

/// A live TallyFS mount, run by a child process in the foreground. The end of the object unmounts
/// and checks (CHECK) that the daemon ended with status 0 and that no sanitizer and no allocation
/// guard spoke. A watchdog kills the daemon and aborts the connection when the mount lives longer
/// than `life_max`, so that a hang becomes a failure.
class Mount {
 public:
  struct Settings {
    std::string options =
        "";  ///< what follows -o; with uring=off and watch=off unless it says otherwise
    bool over_itself = false;
    bool wait_for_scan = true;  ///< else it may still be going on when the constructor returns
    ChildProcess::Settings process = {};
    std::chrono::seconds life_max{180};
  };

  /// Returns when the mount is live and scanned. Throws std::runtime_error, with the daemon's log,
  /// when it does not come up within 30 seconds.
  explicit Mount(const MountFolders& folders) : Mount(folders, Settings()) {}
  Mount(const MountFolders& folders, const Settings& settings);
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount();

  /// `path` as seen through the mount, and in the lower directory beside or below it.
  [[nodiscard]] std::string at(const std::string& path = "") const;
  [[nodiscard]] std::string lower(const std::string& path = "") const;

  [[nodiscard]] ChildProcess& daemon() const { return *daemon_; }
  [[nodiscard]] std::string log() const { return daemon_->output(); }

  /// Unmounts and waits for the daemon's end, whose status it checks.
  void unmount();

  /// Waits for the end of a daemon that was told to end in another way, and checks its status.
  void expect_clean_end();

 private:
  void wait_until_scanned();
  void abort_connection() const;

  std::string mountpoint_;
  UniqueFd lower_fd_;
  std::unique_ptr<ChildProcess> daemon_;
  std::string abort_file_;
  bool has_ended_ = false;
  std::optional<Watchdog> watchdog_;
};

/// Whether a FUSE filesystem is mounted at this directory.
bool is_fuse_mount(const std::string& path);

/// Returns when it is, by this process. Throws std::runtime_error, with what the process has
/// printed, when it ends or has not mounted within 30 seconds.
void wait_for_mount(const std::string& path, ChildProcess& daemon);

/// The command line that runs TallyFS with these arguments.
std::vector<std::string> tallyfs_command(const std::vector<std::string>& arguments);

/// The same under strace(1), which injects faults: `trace` and `inject` as of its -e. What it
/// prints goes where the daemon's output goes.
std::vector<std::string> injected_command(const std::string& trace, const std::string& inject,
                                          const std::vector<std::string>& arguments);

}  // namespace tally::test
