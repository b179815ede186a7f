#include "tools/scan_progress.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <utility>

#include "core/human_text.hpp"

namespace tally::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds period{200};
constexpr std::chrono::milliseconds pause_empty{1};
constexpr const char* erase_line = "\r\033[K";
// DECAWM off and on: a line that is too long is cut off instead of going on in the next row, where
// erase_line would not reach it.
constexpr const char* dont_wrap = "\033[?7l";
constexpr const char* wrap = "\033[?7h";

bool is_control(char byte) { return static_cast<unsigned char>(byte) < ' ' || byte == '\177'; }

}  // namespace

ScanProgress::ScanProgress(std::string what) : what_(std::move(what)) {
  std::ranges::replace_if(what_, is_control, '?');
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
  const Clock::time_point start = Clock::now();
  Clock::time_point next = start + period;
  uint64_t entries = 0;
  bool shown = false;
  while (true) {
    // In this order: what was pushed before the end is still counted.
    const bool finished = events_->is_finished();
    const uint32_t taken = take_some(entries);
    if (finished && taken == 0) break;
    if (const Clock::time_point now = Clock::now(); now >= next) {
      print(entries, std::chrono::duration<double>(now - start).count());
      next = now + period;
      shown = true;
    }
    if (taken == 0) std::this_thread::sleep_for(pause_empty);
  }
  if (shown) std::fputs(erase_line, stderr);
}

uint32_t ScanProgress::take_some(uint64_t& entries) const {
  constexpr uint32_t some = 1024;  // so that the clock is not looked at for each
  uint32_t taken = 0;
  for (ScanEvent event; taken < some && events_->pop(event); ++taken)
    if (event.kind != ScanEvent::Kind::leave) ++entries;
  return taken;
}

void ScanProgress::print(uint64_t entries, double seconds) const {
  const double rate = static_cast<double>(entries) / seconds;
  std::fprintf(stderr, "%s%s%s entries, %s/s, scanning %s%s", erase_line, dont_wrap,
               count_text(entries).c_str(), count_text(static_cast<uint64_t>(rate)).c_str(),
               what_.c_str(), wrap);
}

}  // namespace tally::tools
