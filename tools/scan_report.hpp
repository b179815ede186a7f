#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/dir_tree.hpp"
#include "core/scanner.hpp"

namespace tally::tools {

/// The `count` directories that take most room on disk, the largest first; the root is not one of
/// them.
std::vector<DirIndex> largest_directories(const DirTree& tree, uint32_t count);

/// What `tally scan` has to say about a directory that was scanned.
struct ScanReport {
  const std::string& directory;  ///< as given on the command line
  const DirTree& tree;
  const Scanner& scanner;
  const ScanSummary& summary;
  std::optional<std::vector<DirIndex>> largest;  ///< if that was asked for

  /// Totals for people, on standard output.
  void print() const;

  /// The same for programs. Keys are the counters' names. A path that isn't UTF-8 is shown with
  /// U+FFFD in `path` and exactly, byte by byte in hexadecimal, in `path_hex`.
  void print_json() const;

  /// What could not be counted, on standard error: the first of each kind, and how many there are.
  void print_errors() const;

  /// Whether everything that is there was counted. What vanished meanwhile isn't there.
  [[nodiscard]] bool is_complete() const;

 private:
  [[nodiscard]] std::string full_path(std::string_view below) const;
};

}  // namespace tally::tools
