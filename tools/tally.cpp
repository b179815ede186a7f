// tally: the command-line companion.
//
//     command line ─ subcommand ─ exit status (0: all right, 1: something not, 2: usage)
//
// Each subcommand adds itself to the command line and returns what to do; see scan_command.hpp
// and check_command.hpp.

#include <cerrno>
#include <cstdio>
#include <exception>
#include <functional>
#include <iostream>
#include <new>

#include <CLI/CLI.hpp>

#include "core/result.hpp"
#include "tools/check_command.hpp"
#include "tools/exit_status.hpp"
#include "tools/scan_command.hpp"

namespace {

/// What the command line asks for. Returns the exit status.
int run(int argc, char** argv) {
  using namespace tally::tools;
  CLI::App app("Totals of directories: how big, how many, how new.", "tally");
  app.require_subcommand(1);
  app.set_version_flag("-V,--version", "tally " TALLYFS_VERSION);
  ScanCommand scan;
  CLI::App* scan_line = scan.add_to(app);
  CheckCommand check;
  CLI::App* check_line = check.add_to(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? exit_ok : exit_usage;
  }
  try {
    if (scan_line->parsed()) return scan.run();
    if (check_line->parsed()) return check.run();
  } catch (const std::bad_alloc&) {
    std::cerr << "tally: not enough address space for these capacities: lower --max-dirs and "
                 "--max-links (or raise ulimit -v)\n";
  } catch (const std::exception& error) {
    std::cerr << "tally: " << error.what() << '\n';
  }
  return exit_incomplete;
}

}  // namespace

int main(int argc, char** argv) {
  const int status = run(argc, argv);
  // Totals that did not arrive were not told: a full disk, a device that fails.
  int error = std::fflush(stdout) != 0 ? errno : 0;
  if (error == 0 && std::ferror(stdout) != 0) error = EIO;  // an earlier part, and why is forgotten
  if (error == 0) return status;
  std::cerr << "tally: cannot write the output: " << tally::Errno{error}.message() << '\n';
  return tally::tools::exit_incomplete;
}
