#pragma once

#include <string>

namespace tally::fs {

/// Sends the log (spdlog's default logger, and all that libfuse says) to standard error, each line
/// after "tallyfs: ". With `debug`, every request too.
void log_to_stderr(bool debug);

/// From now on to syslog(3): for a daemon without a terminal.
void log_to_syslog();

/// Says, once only, that `-o one_file_system` leaves something out, and names this, the first of
/// it, by its path below the source.
void log_left_out(const std::string& path);

/// While it lives, keeps what libfuse logs instead of logging it: libfuse's functions return -1,
/// and the reason is only in its log. One at a time; from one thread, but libfuse may log from any.
class LibfuseLog {
 public:
  LibfuseLog();
  ~LibfuseLog();
  LibfuseLog(const LibfuseLog&) = delete;
  LibfuseLog& operator=(const LibfuseLog&) = delete;

  /// All that was logged so far, without the prefix "fuse: ", lines joined by "; ".
  [[nodiscard]] std::string text() const;
};

}  // namespace tally::fs
