#pragma once

#include <array>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "tests/mount/mount_guard.hpp"
#include "tests/temp_folder.hpp"

namespace tally::test {

/// The filesystems below a mount that are tested: all kinds of allocation that Linux knows.
enum class LowerKind { ext4, xfs, btrfs, tmpfs };

/// For GENERATE(from_range(all_lower_kinds)), or one by one for TEMPLATE_TEST_CASE_SIG.
inline constexpr std::array all_lower_kinds = {LowerKind::ext4, LowerKind::xfs, LowerKind::btrfs,
                                               LowerKind::tmpfs};

/// As mount(8) calls it.
const char* name_of(LowerKind kind);
std::ostream& operator<<(std::ostream& out, LowerKind kind);

/// Whether this process can make and mount such a filesystem. When not, skips. For root only.
bool can_mount_lower(LowerKind kind);

/// A new filesystem: in a sparse file behind a loop device, or a tmpfs. When the object dies, or
/// the test is killed, it is unmounted, and nothing of it remains.
///
///     const LowerFilesystem lower(GENERATE(from_range(all_lower_kinds)));
///     const MountFolders folders(lower.path());
///     const Mount mount(folders);
class LowerFilesystem {
 public:
  struct Settings {
    uint64_t size_mib = 320;                     ///< XFS takes 300 at least, btrfs 110
    std::string mount_options = "";              ///< what follows -o: "compress=zstd"
    std::vector<std::string> mkfs_options = {};  ///< further arguments of mkfs
    std::string mountpoint = "";                 ///< an existing directory; else a new one
  };

  /// Throws std::runtime_error with what mkfs or mount say, or std::system_error.
  explicit LowerFilesystem(LowerKind kind) : LowerFilesystem(kind, Settings()) {}
  LowerFilesystem(LowerKind kind, const Settings& settings);
  LowerFilesystem(const LowerFilesystem&) = delete;
  LowerFilesystem& operator=(const LowerFilesystem&) = delete;

  /// Where it is mounted; its root, which every user may enter and read.
  [[nodiscard]] const std::string& path() const { return path_; }

  /// Before the object's end; fails the test (FAIL_CHECK) if somebody uses it.
  void unmount() { guard_.unmount(); }

 private:
  TempFolder folder_;
  std::string path_;
  MountGuard guard_;
};

}  // namespace tally::test
