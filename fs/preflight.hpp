#pragma once

#include <string>
#include <vector>

#include "core/unique_fd.hpp"
#include "fs/options.hpp"

namespace tally::fs {

/// What is to be mounted and where, both looked at and found usable.
struct Place {
  UniqueFd source;          ///< the open directory; opened before mounting, which may hide its path
  std::string source_path;  ///< absolute, without symbolic links
  std::string mountpoint;   ///< absolute, without symbolic links
  /// Restrictions of the filesystem below that the mount must share, in mount(8)'s words.
  std::vector<std::string> restrictions;
};

/// Opens the source and checks both places. Throws StartupError.
Place find_place(const Options& options);

/// Checks that this process may mount: the device, the privilege or the helper. Throws
/// StartupError.
void check_fuse(const Options& options);

/// Whether FUSE over io_uring is to be tried. Throws StartupError if it was asked for and this
/// kernel, or its administrator, doesn't offer it.
bool uring_wanted(UringMode mode);

}  // namespace tally::fs
