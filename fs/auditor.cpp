#include "fs/auditor.hpp"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <system_error>
#include <utility>

#include <spdlog/spdlog.h>

#include "core/human_text.hpp"
#include "fs/background_thread.hpp"
#include "fs/write_out.hpp"

namespace tally::fs {

namespace {

using namespace std::chrono_literals;

// How soon a suspect directory is recounted; and how long after one that could not be read as a
// whole the next try is, at most.
constexpr std::chrono::milliseconds repair_delay = 200ms;
constexpr std::chrono::milliseconds repair_delay_max = 60s;
// Half of the recounts that may be under way.
constexpr uint32_t scan_threads_max = DirTree::recounts_max / 2;
// So many walks in a row that got nowhere end a scan; and how long it rests after each.
constexpr int fruitless_walks_max = 8;
constexpr std::chrono::milliseconds fruitless_pause = 10ms;
// Who helps a scan and finds nothing to do looks again so soon, at first, and so late in the end.
constexpr std::chrono::milliseconds idle_pause_least = 1ms;
constexpr std::chrono::milliseconds idle_pause_most = 64ms;
// The audit that never ends sleeps at least so long at a time.
constexpr std::chrono::milliseconds pause_least = 10ms;
// Between two of its rounds, so that a small tree is not audited without a break.
constexpr std::chrono::milliseconds audit_break = 60s;
// After an audit, before one because of a doubt: in terms of what it took.
constexpr int rest_factor = 9;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Auditor::Auditor(Filesystem& filesystem, const Settings& settings, const Place& place)
    : filesystem_(filesystem),
      audit_operations_per_s_(settings.operations_per_s),
      place_(place),
      repairer_(filesystem),
      auditor_(filesystem),
      scanning_(has_suspects()) {
  const uint32_t scan_threads = std::min(settings.scan_threads, scan_threads_max);
  while (scanning_ && scan_helpers_.size() + 1 < scan_threads)
    scan_helpers_.push_back(std::make_unique<Recounter>(filesystem));
  repairs_ = start_background_thread("repairs", [this] { run_repairs(); });
  audits_ = start_background_thread("audits", [this] { run_audits(); });
}

Auditor::~Auditor() { stop(); }

void Auditor::stop() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (repairs_.joinable()) repairs_.join();
  if (audits_.joinable()) audits_.join();
}

bool Auditor::has_suspects() {
  DirTree& tree = filesystem_.accounts().tree();
  return tree.has_suspects(tree.root());
}

/// False when it is time to end. With `makes_way` also as soon as an audit is asked for.
bool Auditor::sleep(std::chrono::microseconds duration, bool makes_way) {
  const auto end = Clock::now() + duration;
  const MutexLock lock(mutex_);
  while (goes_on(makes_way) && duration != 0us && changed_.wait_until(mutex_, end)) {
  }
  return goes_on(makes_way);
}

// --- Scanning and repairing ------------------------------------------------------------------

void Auditor::run_repairs() {
  if (scanning_) scan();
  search_for_names(filesystem_.began_ns());
  scanning_ = false;
  DirTree& tree = filesystem_.accounts().tree();
  std::chrono::milliseconds delay = repair_delay;
  Clock::time_point next_try = Clock::now();
  uint64_t suspicions = 0;
  while (sleep(repair_delay)) {
    audit_what_is_doubted();
    // What could not be recounted is tried again more and more rarely, unless there is something
    // new.
    const bool is_due = Clock::now() >= next_try || tree.suspicions() != suspicions;
    if (!has_suspects() || !is_due) continue;
    delay = repair() ? repair_delay : std::min(2 * delay, repair_delay_max);
    next_try = Clock::now() + delay;
    suspicions = tree.suspicions();
  }
}

/// The totals are exact as soon as no directory is suspect any more: each has been recounted then.
/// A walk that recounts nothing may have been passed by a directory that moved the other way; what
/// is left after some of these can't be recounted just now.
void Auditor::scan() {
  const auto start = Clock::now();
  write_out(place_);
  int fruitless_walks = 0;
  while (fruitless_walks < fruitless_walks_max && has_suspects() && !stopping_) {
    if (scan_together()) {
      fruitless_walks = 0;
    } else {
      ++fruitless_walks;
      sleep(fruitless_pause);
    }
  }
  if (!stopping_) log_scan(seconds_since(start));
}

void Auditor::log_scan(double seconds) const {
  const DirTree& tree = filesystem_.accounts().tree();
  const DirCounters totals = tree.counters(tree.root());
  spdlog::info("scanned in {:.2f} s: {} directories, {} files, {}{}", seconds,
               count_text(static_cast<uint64_t>(totals.rsubdirs)),
               count_text(static_cast<uint64_t>(totals.rfiles)),
               bytes_text(static_cast<uint64_t>(totals.rbytes.count)),
               totals.suspect ? ", with suspect totals" : "");
  if (totals.suspect && tree.size() >= tree.capacity())
    spdlog::warn(
        "there is room for {} directories and there are more: totals are incomplete: "
        "mount with a larger -o max_dirs",
        count_text(tree.capacity()));
}

/// A walk of this thread, and as many of the helpers as there is time for meanwhile. False if none
/// of them got on: nothing was recounted, or only what could not be read.
bool Auditor::scan_together() {
  std::atomic<bool> over = false;
  std::atomic<bool> got_on = false;
  const auto walk = [&](Recounter& recounter, const Recounter::Pace& pace) {
    const bool has_got_on = recounter.walk(Recounter::Scope::unscanned, pace).got_on();
    if (has_got_on) got_on = true;
    return has_got_on;
  };
  const auto help = [&](Recounter& recounter) {
    auto pause = idle_pause_least;
    while (!over && !stopping_) {
      const bool has_got_on = walk(recounter, [&](uint64_t) { return !over && !stopping_; });
      pause = has_got_on ? idle_pause_least : std::min(2 * pause, idle_pause_most);
      if (!has_got_on && !over) std::this_thread::sleep_for(pause);
    }
  };
  std::vector<std::thread> helpers;
  for (const auto& recounter : scan_helpers_) {
    try {
      helpers.push_back(start_background_thread("scan", [&] { help(*recounter); }));
    } catch (const std::system_error&) {
      break;  // fewer do it, too
    }
  }
  walk(repairer_, full_speed());
  over = true;
  for (std::thread& helper : helpers)
    helper.join();
  return got_on;
}

/// False if it did not get on: all that is left could not be recounted just now.
bool Auditor::repair() { return repairer_.walk(Recounter::Scope::suspects, full_speed()).got_on(); }

/// Where the other names are of what others have linked behind our back.
void Auditor::search_for_names(TimeNs since) {
  if (filesystem_.accounts().links().has_names_to_search(since)) doubt_everything();
}

void Auditor::audit_what_is_doubted() {
  {
    const MutexLock lock(mutex_);
    if (requested_ != served_) return;  // it finds names, too
  }
  search_for_names(0);
  if (!doubts_everything()) return;
  {
    const MutexLock lock(mutex_);
    if (Clock::now() < rests_until_) return;
    ++requested_;
  }
  changed_.notify_all();
}

std::optional<unsigned> Auditor::scanned_percent() const {
  if (!scanning_) return std::nullopt;
  const uint64_t known = std::max<uint64_t>(filesystem_.accounts().tree().size(), 1);
  uint64_t scanned = repairer_.directories();
  for (const auto& helper : scan_helpers_)
    scanned += helper->directories();
  return static_cast<unsigned>(std::min<uint64_t>(scanned * 100 / known, 99));
}

// --- Auditing --------------------------------------------------------------------------------

void Auditor::request_audit() {
  {
    const MutexLock lock(mutex_);
    ++requested_;
  }
  changed_.notify_all();
}

void Auditor::run_audits() {
  bool rested = true;
  while (!stopping_) {
    bool requested = false;
    {
      const MutexLock lock(mutex_);
      while (!stopping_ && requested_ == served_ && (audit_operations_per_s_ == 0 || !rested))
        rested = !changed_.wait_until(mutex_, Clock::now() + audit_break);
      requested = requested_ != served_;
    }
    while (scanning_ && sleep(repair_delay)) {
    }
    if (stopping_) return;
    audit(requested);
    rested = false;
  }
}

void Auditor::audit(bool requested) {
  const auto start = Clock::now();
  const uint64_t doubts = doubts_;
  uint64_t covered = 0;
  {
    const MutexLock lock(mutex_);
    covered = requested_;
  }
  if (requested) write_out(place_);
  const auto outcome =
      auditor_.walk(Recounter::Scope::everything, requested ? full_speed() : slow_pace());
  {
    const MutexLock lock(mutex_);
    totals_.differences += outcome.differing;
    totals_.failed += outcome.failed;
  }
  if (!outcome.finished) return;
  if (outcome.differing != 0)
    spdlog::warn("audit: {} of {} directories differed and are corrected",
                 count_text(outcome.differing), count_text(outcome.directories));
  if (requested)
    spdlog::info("audit: {} directories with {} entries recounted in {:.2f} s, {} differed",
                 count_text(outcome.directories), count_text(outcome.entries), seconds_since(start),
                 count_text(outcome.differing));
  const MutexLock lock(mutex_);
  doubts_settled_ = doubts;
  // What was asked for in the middle of it needs another one.
  if (requested) {
    served_ = covered;
    rests_until_ = Clock::now() + rest_factor * (Clock::now() - start);
  }
  report_ = {.finished_at_s = ::time(nullptr),
             .directories = outcome.directories,
             .differences = outcome.differing,
             .failed = outcome.failed,
             .seconds = seconds_since(start)};
}

Recounter::Pace Auditor::full_speed() const {
  return [this](uint64_t) { return !stopping_.load(); };
}

/// Of the audit that nobody has asked for: it makes way for one that somebody has, and sleeps after
/// each directory as long as its operations may take.
Recounter::Pace Auditor::slow_pace() {
  return [this, owed = 0us](uint64_t operations) mutable {
    owed += std::chrono::microseconds(operations * 1'000'000 / audit_operations_per_s_);
    return sleep(owed < pause_least ? 0us : std::exchange(owed, 0us), true);
  };
}

std::size_t Auditor::describe(std::span<char> room) {
  const auto number = [](auto value) { return static_cast<long long>(value); };
  const MutexLock lock(mutex_);
  int length = 0;
  if (requested_ != served_) {
    length = std::snprintf(room.data(), room.size(), "running");
  } else if (!report_) {
    length = std::snprintf(room.data(), room.size(), "none");
  } else {
    length = std::snprintf(
        room.data(), room.size(),
        "finished=%lld directories=%lld differences=%lld failed=%lld milliseconds=%lld "
        "all_differences=%lld all_failed=%lld",
        number(report_->finished_at_s), number(report_->directories), number(report_->differences),
        number(report_->failed), number(report_->seconds * 1000), number(totals_.differences),
        number(totals_.failed));
  }
  return std::min(static_cast<std::size_t>(std::max(length, 0)), room.size());
}

}  // namespace tally::fs
