#pragma once

#include <cstdint>

#include "core/directory_opener.hpp"
#include "core/directory_reader.hpp"
#include "core/scan_context.hpp"

namespace tally {

/// What one worker has met.
struct ScanCounts {
  int64_t directories = 0;
  int64_t files = 0;         ///< names of non-directories
  int64_t linked_names = 0;  ///< of these, names of inodes with several names

  ScanCounts& operator+=(const ScanCounts& other) {
    directories += other.directories;
    files += other.files;
    linked_names += other.linked_names;
    return *this;
  }
};

// How totals come together without a pass over the tree.
//
// While a worker reads a directory, nobody else adds to its list of children, and what its files
// amount to is summed up in local variables and added to the node once. `incomplete` of a directory
// counts its children that are not complete, and one for the reading: whoever takes it to zero, the
// reader or the worker that completed the last child, is alone in seeing all below it complete,
// because each decrement releases what was added before and the last one acquires all of them. It
// adds the directory's totals to the parent, once, and goes on with the parent in the same way. So
// every directory publishes exactly once, after all of its children have, and the root comes last.
// (ncdu 2 folds in the same way, with a lock per directory.)

/// One thread of a scan: takes directories, reads them, queues what it finds.
/// Allocates nothing after construction.
class ScanWorker {
 public:
  /// `number` counts from 0, without gaps.
  ScanWorker(ScanContext& scan, unsigned number, unsigned queue_depth);

  /// Until the scan is over.
  void run();

  /// After run().
  [[nodiscard]] const ScanCounts& counts() const { return counts_; }

 private:
  struct Content;

  DirIndex next_directory();
  DirIndex open_some(std::span<const DirIndex> dirs);
  void read(DirIndex dir);
  Status read_entries(DirIndex dir, Content& content);
  [[nodiscard]] bool is_expected(DirIndex dir) const;
  void add_entry(DirIndex dir, const char* name, Content& content);
  void add_directory(DirIndex dir, const char* name, const EntryStat& entry, Content& content);
  void met_again(DirIndex dir, const char* name, const EntryStat& entry);
  void add_file(DirIndex dir, const char* name, const FileStat& stat, Content& content);
  void queue_found(DirIndex dir, Content& content, ScanSchedule::Caller caller);
  void publish(DirIndex dir, const Content& content) TALLY_NO_THREAD_SAFETY_ANALYSIS;
  void cannot_open(DirIndex dir, Errno error);
  void complete(DirIndex dir) TALLY_NO_THREAD_SAFETY_ANALYSIS;
  void report(ScanErrorKind kind, Errno error, DirIndex dir, std::string_view leaf = {});

  [[nodiscard]] std::span<char> path_room() { return {&path_[0], path_.capacity()}; }

  ScanContext& scan_;
  const unsigned number_;
  NameArena::Writer names_;
  DirectoryReader reader_;
  ReservedArray<char> path_;
  DirectoryOpener opener_;
  ScanCounts counts_;
};

}  // namespace tally
