#pragma once

#include <string>

#include <CLI/CLI.hpp>

namespace tally::tools {

/// `tally check DIR`: has the TallyFS mount that DIR is in recount everything, and tells what was
/// found.
class CheckCommand {
 public:
  /// Adds the subcommand to the command line, whose parsing fills this object.
  CLI::App* add_to(CLI::App& app);

  /// Does it. Returns the exit status; throws std::exception when it can't be done at all.
  int run();

 private:
  std::string directory_ = ".";
  bool json_ = false;
};

}  // namespace tally::tools
