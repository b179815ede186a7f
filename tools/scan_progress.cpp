#include "tools/scan_progress.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "core/human_text.hpp"

namespace tally::tools {
namespace {

constexpr std::chrono::milliseconds period{200};
constexpr const char* erase_line = "\r\033[K";

}  // namespace

ScanProgress::ScanProgress(std::string what) : what_(std::move(what)) {
  if (::isatty(STDERR_FILENO) == 0) return;
  constexpr uint32_t events_max = 1 << 14;
  events_ = std::make_unique<ScanEvents>(events_max);
  thread_ = std::thread([this] { show(); });
}

ScanProgress::~ScanProgress() {
  if (!events_) return;
  events_->finish();  // for a scan that never began
  thread_.join();
}

void ScanProgress::show() const {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Clock::time_point next = start + period;
  uint64_t entries = 0;
  for (ScanEvent event; events_->wait(event);) {
    if (event.kind == ScanEvent::Kind::leave) continue;
    ++entries;
    // The clock is looked at now and then only: a scan sees millions of entries per second.
    if (entries % 256 != 0) continue;
    const Clock::time_point now = Clock::now();
    if (now < next) continue;
    next = now + period;
    const double seconds = std::chrono::duration<double>(now - start).count();
    std::fprintf(stderr, "%sscanning %s: %s entries, %s/s", erase_line, what_.c_str(),
                 count_text(entries).c_str(),
                 count_text(static_cast<uint64_t>(static_cast<double>(entries) / seconds)).c_str());
  }
  std::fputs(erase_line, stderr);
}

}  // namespace tally::tools
