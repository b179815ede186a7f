#pragma once

#include <string>

namespace tally::test {

/// A new empty folder, removed with everything in it when the object dies.
class TempFolder {
 public:
  /// `label` becomes part of the folder's name. It lies in `parent`, or when that is empty in
  /// TALLYFS_TEST_DIR, else TMPDIR, else /tmp. Throws std::system_error.
  explicit TempFolder(const std::string& label = "test", const std::string& parent = "");
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder();

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Writes out the filesystem that `path` is on (syncfs(2)), after which ext4 has made its delayed
/// allocations and st_blocks stands still. Throws std::system_error.
void sync_filesystem(const std::string& path);

}  // namespace tally::test
