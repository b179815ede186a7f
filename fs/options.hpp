#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/filesystem.hpp"

namespace tally::fs {

/// FUSE over io_uring: where kernel and libfuse have it, or fail without it, or never.
enum class UringMode { automatic, on, off };

/// Whether the mount is up at once and scanned behind, or only when it has been scanned.
enum class ScanMode { background, wait };

/// Whether changes behind the mount are looked for all the time, where that can be had, or only by
/// audits.
enum class WatchMode { automatic, off };

/// What the user asked for. What is nullopt follows from the machine: see Limits and Session.
struct Options {
  std::string source;      ///< as given
  std::string mountpoint;  ///< as given; the source where it was left out

  DataPath data_path = DataPath::direct;
  DirectorySize directory_size = DirectorySize::recursive;
  UringMode uring = UringMode::automatic;
  bool list_counters = false;
  bool one_file_system = false;
  double attribute_timeout_s = 1.0;
  /// When a file that was written to is looked at once more. 30 s is when the kernel, too, begins
  /// to write it back (vm.dirty_expire_centisecs). Earlier costs writes that it saves by waiting:
  /// of files that are deleted or written again.
  double settling_delay_s = 30.0;

  std::optional<uint32_t> directories_max;
  std::optional<uint32_t> buffers;
  uint32_t buffer_size_bytes = 1 << 20;
  std::optional<uint32_t> scan_threads;
  uint32_t queue_depth = 64;
  ScanMode scan = ScanMode::background;
  uint32_t audit_operations_per_s = 100;
  WatchMode watch = WatchMode::automatic;

  bool allow_other = false;              ///< for root the session always allows it
  std::vector<std::string> mount_flags;  ///< restrictions for mount(2): "ro", "nosuid", …

  bool foreground = false;
  bool debug = false;
  bool show_limits = false;
};

/// The outcome of reading a command line: options to run with, or something to print and a status
/// to exit with.
struct CommandLine {
  Options options;
  std::string text;                 ///< help or version, for standard output
  std::vector<std::string> errors;  ///< one line each, without a trailing newline
  int exit_status = 0;              ///< if there is text or an error: 0, 1, or 2 for wrong usage

  [[nodiscard]] bool runnable() const { return text.empty() && errors.empty(); }
};

/// Reads the arguments of main(), the program's name included. Every bad value gets a line of its
/// own. Looks at nothing but the arguments.
CommandLine parse_command_line(int argc, const char* const* argv);

/// Reads one list as given to -o ("io=direct,ro") into `line`. What mount(8) and fstab(5) add for
/// themselves is ignored. Options that would loosen the mount (suid, dev, exec, rw) are, too: the
/// mount has the restrictions of the filesystem below and those asked for, never fewer.
void parse_option_list(std::string_view list, CommandLine& line);

}  // namespace tally::fs
