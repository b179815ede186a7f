#pragma once

#include <optional>
#include <span>

#include "core/ring.hpp"
#include "core/scan_context.hpp"

namespace tally {

/// Opens one worker's directories, several in one system call where there is a Ring, and looks
/// after their descriptors.
///
/// A directory is opened relative to its parent by its name alone, never through a symbolic link.
/// For that the parent lends its descriptor, and closes it when the last child that is to be opened
/// is open. When the LendingBudget is used up, a directory doesn't lend: then its children are
/// opened by their path from the root of the scan, in steps shorter than PATH_MAX, so that neither
/// many nor deep directories need many descriptors.
///
/// For one thread. Allocates nothing after construction.
class DirectoryOpener {
 public:
  static constexpr std::size_t batch_max = 8;

  /// `queue_depth` of the ring, 0 for none. Where there is no io_uring plain calls do the same.
  /// `path_room` is scratch space for paths.
  DirectoryOpener(ScanContext& scan, unsigned queue_depth, std::span<char> path_room);

  /// How many directories it is good to open at once just now.
  [[nodiscard]] std::size_t batch_size() const;

  /// Opens at most batch_max directories, each into its ScanState::descriptor: a descriptor, or a
  /// negative errno.
  void open(std::span<const DirIndex> dirs);

  /// The worker that opened or took over `dir` has read it to the end.
  void finish_reading(DirIndex dir);

  /// Closes what is to be closed now rather than with the next batch.
  void flush();

 private:
  void open_by_ring(std::span<const DirIndex> dirs);
  [[nodiscard]] int open_alone(DirIndex dir);
  [[nodiscard]] int open_from_root(DirIndex dir);
  void collect(std::span<const DirIndex> dirs);
  void opened(DirIndex dir, int descriptor);
  void return_loan(DirIndex dir);
  void close(int descriptor);

  ScanContext& scan_;
  std::optional<Ring> ring_;
  const std::span<char> path_room_;
};

}  // namespace tally
