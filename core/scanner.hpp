#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "core/dir_tree.hpp"
#include "core/hard_links.hpp"
#include "core/result.hpp"
#include "core/scan_context.hpp"
#include "core/scan_errors.hpp"
#include "core/scan_events.hpp"
#include "core/scan_worker.hpp"

namespace tally {

struct ScannerOptions {
  unsigned threads = 0;          ///< 0: as many as there are cores
  unsigned queue_depth = 64;     ///< of each worker's io_uring; 0, or few descriptors: none
  uint32_t descriptors_max = 0;  ///< kept for opening children; 0: as the process's limit allows
  bool keep_names = false;       ///< so that path_of() works after the scan
  bool one_file_system = false;  ///< leave out what has another st_dev than the root of the scan
  ScanEvents* events = nullptr;  ///< consumed by another thread meanwhile; null: none are made
};

struct ScanSummary {
  ScanCounts counts;
  std::array<uint64_t, scan_error_kinds> errors = {};
  double seconds = 0;

  /// Names below the root.
  [[nodiscard]] int64_t entries() const { return counts.directories + counts.files; }
  [[nodiscard]] uint64_t errors_of(ScanErrorKind kind) const {
    return errors[static_cast<std::size_t>(kind)];
  }
};

/// Walks a directory once and fills an empty DirTree and HardLinks with what it finds.
///
/// Mount points below are entered (unless told otherwise) and symbolic links are never followed, as
/// `du` does. What can't
/// be read, vanishes or changes meanwhile is counted by kind and never ends the scan. Counters are
/// exact if nothing changes the directory during the scan; they can be queried any time.
///
/// How: see scan_schedule.hpp (who reads what, and when it is over), scan_worker.hpp (reading, and
/// how totals come together) and directory_opener.hpp (descriptors).
///
/// Everything is taken by the constructor; nothing is allocated in run().
class Scanner {
 public:
  /// The tree, the links and the events must outlive the scanner. Starts its threads, which sleep.
  /// Throws std::bad_alloc, std::system_error.
  Scanner(DirTree& tree, HardLinks& links, const ScannerOptions& options = {});
  Scanner(const Scanner&) = delete;
  Scanner& operator=(const Scanner&) = delete;
  ~Scanner();

  /// Scans the directory that `source_fd` is open on (O_PATH will do; it stays the caller's). Once,
  /// on the thread that constructed the scanner and will destroy it. Fails only if `source_fd` is
  /// not a directory that can be stat'ed.
  Result<ScanSummary> run(int source_fd);

  /// What went wrong, after run().
  [[nodiscard]] const ScanErrors& errors() const { return context_.errors; }

  /// With `keep_names`, after run(): the path of a directory below the root, "" for the root
  /// itself. Allocates.
  [[nodiscard]] std::string path_of(DirIndex dir) const;

  /// With `keep_names`: the text of a ScanEvent's name.
  [[nodiscard]] const char* name(NameRef name) const { return context_.names.text(name); }

 private:
  /// With options that leave nothing open.
  Scanner(const ScannerOptions& options, DirTree& tree, HardLinks& links);

  void start(unsigned worker_number);
  void end_threads();

  ScanContext context_;
  const bool one_file_system_;
  std::deque<ScanWorker> workers_;
  std::atomic<int> phase_ = 0;
  std::vector<std::thread> threads_;  // of all workers but the first, which is run()'s caller
};

}  // namespace tally
