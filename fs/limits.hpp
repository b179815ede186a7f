#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fs/filesystem.hpp"
#include "fs/options.hpp"

namespace tally::fs {

/// What the machine offers, as far as capacities depend on it.
struct Machine {
  uint64_t lower_inodes = 0;  ///< of the filesystem below (statfs f_files), 0 if it has no number
  uint32_t descriptors = 0;   ///< what this process may have open
  uint32_t processors = 0;    ///< that it may run on
  /// For FUSE over io_uring libfuse makes one for each processor that may ever be there; 0 without.
  uint32_t uring_queues = 0;

  /// Looks at the filesystem of `source_fd` and at the process, whose soft limit of descriptors is
  /// raised to the hard one. Throws std::system_error, and StartupError as uring_wanted() does.
  static Machine examine(int source_fd, UringMode uring);
};

/// One named term of the sum of what the daemon takes.
struct LimitTerm {
  std::string name;
  uint64_t count;
  uint64_t bytes_each;     ///< memory for one that is in use
  uint64_t bytes_address;  ///< address space for all of them
  std::string origin;      ///< where the count comes from
};

/// All capacities, computed once: nothing of ours grows afterwards. Most cost address space only,
/// and memory as they are used.
struct Limits {
  /// Requests that each queue of FUSE over io_uring holds, with a buffer for each.
  static constexpr uint32_t uring_queue_depth = 8;

  uint32_t directories_max = 0;
  uint32_t linked_inodes_max = 0;
  uint32_t inodes_max = 0;
  uint32_t descriptors_max = 0;         ///< for requests: cached inodes, open files and directories
  uint32_t direct_descriptors_max = 0;  ///< second ones of open files that are read directly
  uint32_t open_files_max = 0;
  uint32_t open_directories_max = 0;
  uint32_t stale_directories_max = 0;
  uint32_t settling_files_max = 0;
  uint32_t buffers = 0;
  uint32_t buffer_size_bytes = 0;
  uint32_t request_threads = 0;
  uint32_t scan_threads = 0;
  uint32_t uring_queues = 0;  ///< 0: requests come through /dev/fuse only
  std::vector<LimitTerm> terms;

  static Limits compute(const Options& options, const Machine& machine);

  [[nodiscard]] FilesystemOptions filesystem_options(const Options& options) const;

  /// The terms and their sum, for people.
  [[nodiscard]] std::string table() const;
};

}  // namespace tally::fs
