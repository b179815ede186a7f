#pragma once

#include <cstdint>
#include <string>

#include <CLI/CLI.hpp>

namespace tally::tools {

/// `tally scan DIR`: scans a directory once, with no mount, and prints its totals.
class ScanCommand {
 public:
  /// Adds the subcommand to the command line, whose parsing fills this object.
  CLI::App* add_to(CLI::App& app);

  /// Does it. Returns the exit status; throws std::exception when it can't be done at all.
  int run();

 private:
  std::string directory_ = ".";
  bool json_ = false;
  bool one_file_system_ = false;
  uint32_t top_ = 0;
  uint32_t threads_ = 0;
  uint32_t queue_depth_ = 64;
  uint32_t max_dirs_ = 0;
  uint32_t max_links_ = 0;
};

}  // namespace tally::tools
