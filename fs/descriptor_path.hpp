#pragma once

#include <array>
#include <charconv>
#include <string_view>

namespace tally::fs {

/// The way in /proc to what a descriptor has open, without any name of it and for O_PATH
/// descriptors too (proc_pid_fd(5)). To be followed: it leads to the inode itself, even when that
/// is a symbolic link. In a buffer of its own, so that nothing is allocated.
class DescriptorPath {
 public:
  explicit DescriptorPath(int fd) {
    folder.copy(text_.data(), folder.size());
    std::to_chars(text_.data() + folder.size(), text_.data() + text_.size() - 1, fd);
  }

  /// "/proc/self/fd/17", for calls that know no directory descriptors.
  [[nodiscard]] const char* path() const { return text_.data(); }

  /// "17", relative to /proc/self/fd.
  [[nodiscard]] const char* name() const { return text_.data() + folder.size(); }

 private:
  static constexpr std::string_view folder = "/proc/self/fd/";
  std::array<char, folder.size() + 12> text_ = {};
};

}  // namespace tally::fs
