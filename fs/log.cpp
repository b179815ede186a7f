#include "fs/log.hpp"

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string_view>

#include <fuse_log.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>

namespace tally::fs {
namespace {

std::mutex kept_mutex;
bool keeping = false;
std::string kept;

spdlog::level::level_enum level_of(fuse_log_level level) {
  switch (level) {
    case FUSE_LOG_DEBUG:
      return spdlog::level::debug;
    case FUSE_LOG_INFO:
    case FUSE_LOG_NOTICE:
      return spdlog::level::info;
    case FUSE_LOG_WARNING:
      return spdlog::level::warn;
    default:
      return spdlog::level::err;
  }
}

void log_libfuse(fuse_log_level level, const char* format, std::va_list arguments) {
  char buffer[1024];
  if (std::vsnprintf(buffer, sizeof buffer, format, arguments) < 0) return;
  std::string_view line(buffer);
  while (line.ends_with('\n'))
    line.remove_suffix(1);
  if (level != FUSE_LOG_DEBUG) {
    const std::lock_guard lock(kept_mutex);
    if (keeping) {
      if (line.starts_with("fuse: ")) line.remove_prefix(6);
      kept.append(kept.empty() ? "" : "; ").append(line);
      return;
    }
  }
  spdlog::log(level_of(level), "{}", line);
}

void use(const spdlog::sink_ptr& sink, const char* pattern) {
  auto logger = std::make_shared<spdlog::logger>("tallyfs", sink);
  logger->set_pattern(pattern);
  logger->set_level(spdlog::get_level());
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace

void log_to_stderr(bool debug) {
  spdlog::set_level(debug ? spdlog::level::debug : spdlog::level::info);
  use(std::make_shared<spdlog::sinks::stderr_sink_mt>(), "tallyfs: %v");
  fuse_set_log_func(log_libfuse);
}

void log_to_syslog() {
  constexpr int no_options = 0;
  use(std::make_shared<spdlog::sinks::syslog_sink_mt>("tallyfs", no_options, LOG_DAEMON, false),
      "%v");
}

void log_left_out(const std::string& path) {
  static std::atomic_flag said;
  if (said.test_and_set()) return;
  spdlog::info("one_file_system: other filesystems are left out, first {}", path);
}

LibfuseLog::LibfuseLog() {
  const std::lock_guard lock(kept_mutex);
  kept.clear();
  keeping = true;
}

LibfuseLog::~LibfuseLog() {
  const std::lock_guard lock(kept_mutex);
  keeping = false;
}

std::string LibfuseLog::text() const {
  const std::lock_guard lock(kept_mutex);
  return kept;
}

}  // namespace tally::fs
