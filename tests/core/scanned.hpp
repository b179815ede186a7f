#pragma once

#include <sys/resource.h>

#include <string>

#include "core/dir_tree.hpp"
#include "core/hard_links.hpp"
#include "core/scanner.hpp"
#include "tests/naive_count.hpp"

namespace tally::test {

/// A directory after a scan of it, for tests.
struct Scanned {
  /// To be scanned later, with `keep_names`.
  explicit Scanned(ScannerOptions options, uint32_t dirs_max = 100'000,
                   uint32_t links_max = 10'000);

  /// As above, and scans it.
  explicit Scanned(const std::string& directory, ScannerOptions options = {},
                   uint32_t dirs_max = 100'000, uint32_t links_max = 10'000)
      : Scanned(options, dirs_max, links_max) {
    scan(directory);
  }

  /// Throws std::runtime_error when run() fails.
  void scan(const std::string& directory);

  /// Every directory's counters by path, in the form of the oracle's.
  [[nodiscard]] CountMap counts() const;

  /// Those of the directory with this path below the root.
  [[nodiscard]] DirCounters at(const std::string& path) const;

  DirTree tree;
  HardLinks links;
  Scanner scanner;
  ScanSummary summary;
};

/// How many descriptors this process has open.
std::size_t open_descriptors();

/// While it lives this process may have only descriptors below this number.
class DescriptorLimit {
 public:
  /// Throws std::system_error.
  explicit DescriptorLimit(rlim_t descriptors_max);
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;
  ~DescriptorLimit() { ::setrlimit(RLIMIT_NOFILE, &was_); }

 private:
  rlimit was_{};
};

}  // namespace tally::test
