#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tally::fs {

/// One mount as /proc/self/mountinfo describes it (proc_pid_mountinfo(5)).
struct MountEntry {
  std::string device;      ///< "MAJOR:MINOR", the st_dev of what is in it
  std::string mountpoint;  ///< absolute
  std::string options;     ///< of the mount: "rw,nosuid,relatime"
  std::string type;        ///< "ext4", "fuse.tallyfs"

  /// `device` as pack_dev() (core/file_stat.hpp) packs it; 0 if it is not of that form.
  [[nodiscard]] uint32_t device_number() const;
};

/// Reads one line. Nothing if it is not of that form.
std::optional<MountEntry> parse_mount_entry(std::string_view line);

/// The mount that is visible at `mountpoint`, an absolute path without symbolic links: the last one
/// made there. Nothing if no mount is.
std::optional<MountEntry> mount_at(const std::string& mountpoint);

/// What is mounted below `directory`, an absolute path without symbolic links.
std::vector<MountEntry> mounts_below(const std::string& directory);

}  // namespace tally::fs
