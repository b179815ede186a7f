#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "core/scan_events.hpp"

namespace tally::tools {

/// While it lives, one line on standard error that says how far a scan is, if that is a terminal.
class ScanProgress {
 public:
  /// `what` is being scanned, for people.
  explicit ScanProgress(std::string what);

  /// Ends when the scan has (ScanEvents::finish), and takes the line away.
  ~ScanProgress();
  ScanProgress(const ScanProgress&) = delete;
  ScanProgress& operator=(const ScanProgress&) = delete;

  /// For ScannerOptions: null where nobody would see the line.
  [[nodiscard]] ScanEvents* events() { return events_.get(); }

 private:
  void show() const;
  [[nodiscard]] uint32_t take_some(uint64_t& entries) const;
  void print(uint64_t entries, double seconds) const;

  std::string what_;
  std::unique_ptr<ScanEvents> events_;
  std::thread thread_;
};

}  // namespace tally::tools
