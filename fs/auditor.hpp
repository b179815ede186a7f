#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "core/thread_safety.hpp"
#include "fs/preflight.hpp"
#include "fs/recounter.hpp"

namespace tally::fs {

/// What the last complete audit has found.
struct AuditReport {
  int64_t finished_at_s = 0;  ///< seconds since the epoch
  uint64_t directories = 0;
  uint64_t differences = 0;  ///< directories in which something was not counted as it was found
  uint64_t failed = 0;       ///< directories that could not be read
  double seconds = 0;
};

/// What all audits together have found, also those that made way for another one: for who has asked
/// for one of several.
struct AuditTotals {
  uint64_t differences = 0;
  uint64_t failed = 0;
};

/// Keeps what is counted in agreement with what is there, in the background:
///
/// - scans a tree of which nothing is counted yet, at full speed, while it is served;
/// - recounts directories that become suspect, at once;
/// - audits: recounts everything when asked to, at full speed, and all the time at a low rate.
///
/// One thread repairs, and scans together with others; another one audits, so that repairs don't
/// wait for the end of an audit that takes hours. Thread-safe.
class Auditor {
 public:
  struct Settings {
    uint32_t operations_per_s;  ///< of the audit that never ends, on the lower filesystem; 0: none
    uint32_t scan_threads;      ///< 1 at least; more than are of use are not started
  };

  /// Starts the threads. Filesystem and place must outlive the auditor. Throws std::bad_alloc,
  /// std::system_error.
  Auditor(Filesystem& filesystem, const Settings& settings, const Place& place);

  /// stop().
  ~Auditor();
  Auditor(const Auditor&) = delete;
  Auditor& operator=(const Auditor&) = delete;

  /// Ends the threads after the directory that they are at.
  void stop() TALLY_EXCLUDES(mutex_);

  /// Has everything recounted, soon: another time if that is under way, for what changes meanwhile.
  void request_audit() TALLY_EXCLUDES(mutex_);

  /// Something may have changed that is not known to be in one directory. It takes an audit to find
  /// it, which is begun soon, but takes at most a tenth of the time in the long run. Any thread.
  void doubt_everything() { doubts_.fetch_add(1); }

  /// Until that audit has ended.
  [[nodiscard]] bool doubts_everything() const { return doubts_.load() != doubts_settled_.load(); }

  /// What user.tally.audit says: "running", or "none", or "finished=… directories=… differences=…
  /// failed=… milliseconds=…" of the last audit and "all_differences=… all_failed=…" of all.
  /// Written into `room`; returns its length. Allocates nothing.
  [[nodiscard]] std::size_t describe(std::span<char> room) TALLY_EXCLUDES(mutex_);

  /// How much of the scan is done, while there is one.
  [[nodiscard]] std::optional<unsigned> scanned_percent() const;

 private:
  using Clock = std::chrono::steady_clock;

  void run_repairs() TALLY_EXCLUDES(mutex_);
  void scan() TALLY_EXCLUDES(mutex_);
  bool scan_together() TALLY_EXCLUDES(mutex_);
  void log_scan(double seconds) const;
  bool repair() TALLY_EXCLUDES(mutex_);
  void search_for_names(TimeNs since);
  void audit_what_is_doubted() TALLY_EXCLUDES(mutex_);
  void run_audits() TALLY_EXCLUDES(mutex_);
  void audit(bool requested) TALLY_EXCLUDES(mutex_);
  [[nodiscard]] Recounter::Pace full_speed() const;
  [[nodiscard]] Recounter::Pace slow_pace();
  bool sleep(std::chrono::microseconds duration, bool makes_way = false) TALLY_EXCLUDES(mutex_);
  [[nodiscard]] bool goes_on(bool makes_way) const TALLY_REQUIRES(mutex_) {
    return !stopping_ && !(makes_way && requested_ != served_);
  }
  [[nodiscard]] bool has_suspects();

  Filesystem& filesystem_;
  const uint32_t audit_operations_per_s_;
  const Place& place_;
  Recounter repairer_;
  Recounter auditor_;
  std::vector<std::unique_ptr<Recounter>> scan_helpers_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> scanning_;
  std::atomic<uint64_t> doubts_ = 0;
  std::atomic<uint64_t> doubts_settled_ = 0;

  Mutex mutex_;
  CondVar changed_;
  uint64_t requested_ TALLY_GUARDED_BY(mutex_) = 0;  // audits asked for
  uint64_t served_ TALLY_GUARDED_BY(mutex_) = 0;     // of these, how many a finished audit covers
  std::optional<AuditReport> report_ TALLY_GUARDED_BY(mutex_);
  AuditTotals totals_ TALLY_GUARDED_BY(mutex_);
  Clock::time_point rests_until_ TALLY_GUARDED_BY(mutex_);  // no audit because of a doubt before
  std::thread repairs_;
  std::thread audits_;
};

}  // namespace tally::fs
