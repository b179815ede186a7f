#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/scanner.hpp"
#include "core/unique_fd.hpp"
#include "fs/filesystem.hpp"
#include "tests/temp_folder.hpp"

namespace tally::test {

/// A Filesystem over an empty temporary folder, scanned and started, with no mount.
class FilesystemFixture {
 public:
  FilesystemFixture();

  /// Runs `work` on a thread of its own, as requests do: it becomes somebody else. What it throws
  /// is thrown here.
  static void on_request_thread(const std::function<void()>& work);

  /// Creates a file for writing, and writes a block of 4 KiB. Throw on failure.
  fs::OpenFile& create(const std::string& name);
  void write_block(fs::OpenFile& file, off_t block);

  /// The root's rdisk, as it is counted and as a naive count finds it, everything written back.
  [[nodiscard]] int64_t counted_bytes();
  [[nodiscard]] int64_t bytes_on_disk() const;

  TempFolder folder{"filesystem"};
  UniqueFd source;
  fs::Filesystem filesystem;
  Scanner scanner;
  fs::Caller caller;
};

}  // namespace tally::test
