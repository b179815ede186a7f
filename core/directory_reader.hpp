#pragma once

#include <dirent.h>

#include <cstddef>
#include <cstdint>

#include "core/mapping.hpp"
#include "core/result.hpp"

namespace tally {

/// Reads directories by getdents64(2) into one buffer that is used again for each.
///
///     while (*reader.fill(fd))                          // until it says so itself: ext4 returns
///       while (const char* name = reader.next()) ...    // short when its cache is cold
///
/// For one thread. Allocates nothing after construction.
class DirectoryReader {
 public:
  static constexpr std::size_t buffer_size_bytes = 64 * 1024;

  DirectoryReader() : buffer_(Mapping::reserve_or_throw(buffer_size_bytes)) {}

  /// Reads the next part of the directory; what next() returned before is no longer valid. False at
  /// the end, ENOENT when the directory has been removed. `size_bytes`: read no more than that (a
  /// directory entry takes up to 280).
  Result<bool> fill(int fd, std::size_t size_bytes = buffer_size_bytes);

  /// The next name of the part that was read, without "." and "..", nullptr after the last. The
  /// type that comes with it is not passed on: some filesystems leave it unknown, and every entry
  /// needs a stat anyway.
  const char* next();

  /// As next(), with all that the directory says of the entry. Type and inode number are hints: the
  /// former may be left unknown, the latter is that of a directory which a mount covers.
  const dirent64* next_entry();

  /// The inode number under which the first part lists the directory itself, or 0: no filesystem
  /// is obliged to list it, or to get it right.
  [[nodiscard]] uint64_t own_ino() const;

 private:
  Mapping buffer_;
  std::size_t filled_bytes_ = 0;
  std::size_t read_bytes_ = 0;
};

}  // namespace tally
