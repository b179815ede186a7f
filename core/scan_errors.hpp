#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

#include "core/mapping.hpp"
#include "core/result.hpp"
#include "core/thread_safety.hpp"

namespace tally {

/// What can be wrong with an entry of the tree. Nothing of it ends a scan.
enum class ScanErrorKind : uint8_t {
  unreadable,  ///< can't be opened, read or stat'ed; a directory counts with its own blocks
  vanished,    ///< was listed and is gone: counts as if it had never been there
  changed,     ///< a directory that was something else when opened, or was counted where it was
               ///< moved away from: counts nothing
  duplicate,   ///< a directory met before on another mount (bind mount): counts where met first
  no_room,     ///< a capacity of ours is used up: its content counts nothing
  other_filesystem,  ///< left out, as it was asked to be
};
inline constexpr std::size_t scan_error_kinds = 6;

/// One line about `kind`, for people.
const char* description_of(ScanErrorKind kind);

/// Errors of a scan: all are counted, the first of each kind are kept with their paths.
/// Thread-safe; what a report() refers to stays as it is. Allocates nothing after construction.
class ScanErrors {
 public:
  static constexpr std::size_t reports_max = 10;  ///< of each kind

  /// Relative to the root of the scan; if it is longer than PATH_MAX, only its end.
  struct Report {
    Errno error;
    std::string_view path;
  };

  ScanErrors() : slots_(scan_error_kinds * reports_max) {}

  /// Counts an error. True if it is one of those to be kept: then keep() it.
  [[nodiscard]] bool count(ScanErrorKind kind) {
    return counts_[index_of(kind)].fetch_add(1, std::memory_order_relaxed) < reports_max;
  }
  void keep(ScanErrorKind kind, Errno error, std::string_view path) TALLY_EXCLUDES(mutex_);

  [[nodiscard]] uint64_t counted(ScanErrorKind kind) const {
    return counts_[index_of(kind)].load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::size_t kept(ScanErrorKind kind) const TALLY_EXCLUDES(mutex_);
  [[nodiscard]] Report report(ScanErrorKind kind, std::size_t index) const TALLY_EXCLUDES(mutex_);

 private:
  struct Slot {
    Errno error;
    uint32_t path_size_bytes;
    char path[4096];
  };

  static std::size_t index_of(ScanErrorKind kind) { return static_cast<std::size_t>(kind); }

  mutable Mutex mutex_;
  ReservedArray<Slot> slots_;
  std::array<std::size_t, scan_error_kinds> kept_ TALLY_GUARDED_BY(mutex_) = {};
  std::array<std::atomic<uint64_t>, scan_error_kinds> counts_ = {};
};

}  // namespace tally
