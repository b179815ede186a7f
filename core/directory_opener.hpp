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
/// A directory may lend only with a unit of that budget, which is taken before it is opened. So
/// besides what is lent a worker has at most descriptors_each, whatever it is doing.
///
/// For one thread. Allocates nothing after construction.
class DirectoryOpener {
 public:
  static constexpr std::size_t batch_max = 8;

  /// At most, besides what is lent: the directory that is read and two steps of a path from the
  /// root; with a ring that itself, and what it has yet to close.
  static constexpr uint32_t descriptors_each = 3;
  static constexpr uint32_t descriptors_each_with_ring = descriptors_each + 1 + 2 * batch_max;

  /// `queue_depth` of the ring, 0 for none. Where there is no io_uring plain calls do the same.
  /// `path_room` is scratch space for paths.
  DirectoryOpener(ScanContext& scan, unsigned queue_depth, std::span<char> path_room);

  /// How many directories it is good to open at once.
  [[nodiscard]] std::size_t batch_size() const { return ring_ ? batch_max : 1; }

  /// Opens at most batch_max directories, each into its ScanState::descriptor: a descriptor, or a
  /// negative errno. All but the first stay not_opened where there are no descriptors for them; for
  /// the first it waits a while if the process has no more.
  void open(std::span<const DirIndex> dirs);

  /// The worker that opened or took over `dir` has read it to the end.
  void finish_reading(DirIndex dir);

  /// Closes what is to be closed now rather than with the next batch.
  void flush();

 private:
  void open_by_ring(std::span<const DirIndex> dirs);
  [[nodiscard]] int open_patiently(DirIndex dir);
  [[nodiscard]] int open_alone(DirIndex dir);
  [[nodiscard]] int open_from_root(DirIndex dir);
  void collect(std::span<const DirIndex> dirs);
  void opened(DirIndex dir, int descriptor);
  void return_loan(DirIndex dir);
  void close(int descriptor);

  /// For descriptors, of a millisecond each, before it is taken that there will be none.
  static constexpr unsigned waits_max = 1000;

  ScanContext& scan_;
  std::optional<Ring> ring_;
  const std::span<char> path_room_;
  uint32_t units_ = 0;  // of the LendingBudget, for the batch that is being opened
  unsigned waits_left_ = waits_max;
};

}  // namespace tally
