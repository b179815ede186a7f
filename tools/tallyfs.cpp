// tallyfs: mounts over a directory and keeps the size of every folder exact and live.
//
// The main flow:
//
//     command line ─ places ─ limits ─ [fork] ─ filesystem ─ watch ─ [scan=wait: write out ─ scan]
//     ─ mount ─ live ─ serve, and with scan=background scan meanwhile ─ end
//
// All memory and every capacity is settled before the scan, and the source is open before the mount
// hides its path. In the background everything from the fork on happens in a child, whose parent
// waits until it is live. Errors up to that point are one line each on standard error; afterwards
// they go to the log (syslog, or standard error with -f).

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <expected>
#include <iostream>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <system_error>

#include <spdlog/spdlog.h>

#include "core/human_text.hpp"
#include "core/scanner.hpp"
#include "fs/change_watcher.hpp"
#include "fs/filesystem.hpp"
#include "fs/limits.hpp"
#include "fs/log.hpp"
#include "fs/options.hpp"
#include "fs/preflight.hpp"
#include "fs/session.hpp"
#include "fs/startup_error.hpp"
#include "fs/write_out.hpp"
#include "tools/background.hpp"
#include "tools/scan_progress.hpp"
#include "tools/service_manager.hpp"

namespace tally::tools {
namespace {

/// What could not be counted, one line per kind with an example.
void report_errors(const Scanner& scanner, const std::string& source) {
  for (std::size_t i = 0; i < scan_error_kinds; ++i) {
    const auto kind = static_cast<ScanErrorKind>(i);
    const uint64_t count = scanner.errors().counted(kind);
    if (count == 0) continue;
    if (kind == ScanErrorKind::other_filesystem) {
      fs::log_left_out(std::string(scanner.errors().report(kind, 0).path));
      continue;
    }
    std::string example;
    if (scanner.errors().kept(kind) > 0) {
      const ScanErrors::Report first = scanner.errors().report(kind, 0);
      example = fmt::format(", first {}/{}: {}", source, first.path, first.error.message());
    }
    const char* const advice = kind == ScanErrorKind::no_room
                                   ? "; totals are incomplete: mount with a larger -o max_dirs"
                                   : "";
    spdlog::warn("{} entries: {}{}{}", count_text(count), description_of(kind), example, advice);
  }
}

ScanSummary scan(const fs::Options& options, const fs::Limits& limits, const fs::Place& place,
                 fs::Filesystem& filesystem) {
  tell_service_manager("STATUS=Scanning " + place.source_path);
  std::optional<ScanProgress> progress(std::in_place, place.source_path);
  Scanner scanner(filesystem.accounts().tree(), filesystem.accounts().links(),
                  {.threads = limits.scan_threads,
                   .queue_depth = options.queue_depth,
                   .one_file_system = options.one_file_system,
                   .events = progress->events()});
  const auto summary = scanner.run(place.source.get());
  progress.reset();  // what is reported next begins in a line of its own
  if (!summary)
    throw fs::StartupError("cannot scan " + place.source_path + ": " + summary.error().message());
  report_errors(scanner, place.source_path);
  return *summary;
}

/// "/srv/data live: 1,234 directories, 56,789 files, 12.3 GiB, scanned in 0.41 s (141,519
/// entries/s)"
/// or "/srv/data live, being scanned"
std::string announcement(const fs::Place& place, fs::Filesystem& filesystem,
                         const std::optional<ScanSummary>& scanned) {
  DirTree& tree = filesystem.accounts().tree();
  const DirCounters totals = tree.counters(tree.root());
  const std::string where = place.mountpoint == place.source_path ? "" : " on " + place.mountpoint;
  if (!scanned) return fmt::format("{} live{}, being scanned", place.source_path, where);
  const ScanSummary& summary = *scanned;
  const double rate = static_cast<double>(summary.entries()) / std::max(summary.seconds, 1e-6);
  const char* const doubt = totals.suspect ? ", with suspect totals" : "";
  return fmt::format(
      "{} live{}{}: {} directories, {} files, {}, scanned in {:.2f} s ({} entries/s)",
      place.source_path, where, doubt, count_text(static_cast<uint64_t>(totals.rsubdirs)),
      count_text(static_cast<uint64_t>(totals.rfiles)),
      bytes_text(static_cast<uint64_t>(totals.rbytes.count)), summary.seconds,
      count_text(static_cast<uint64_t>(rate)));
}

/// How large a file may become is up to the callers' limits, which the kernel checks. Ours is
/// lifted as far as may be, and a write beyond it fails (EFBIG) instead of killing us.
void lift_file_size_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  std::signal(SIGXFSZ, SIG_IGN);
}

/// Whoever looks for changes behind the mount; null if nobody is to, or why nobody can. Over itself
/// the mount hides the source, and each change of ours would cost an event for nothing.
std::expected<std::unique_ptr<fs::ChangeWatcher>, std::string> watch(const fs::Options& options,
                                                                     const fs::Place& place,
                                                                     fs::Filesystem& filesystem) {
  if (options.watch == fs::WatchMode::off || place.mountpoint == place.source_path) return nullptr;
  try {
    return std::make_unique<fs::ChangeWatcher>(filesystem);
  } catch (const std::system_error& error) {
    return std::unexpected(error.what());
  }
}

int run(const fs::Options& options) {
  const fs::Place place = fs::find_place(options);
  const fs::Limits limits =
      fs::Limits::compute(options, fs::Machine::examine(place.source.get(), options.uring));
  if (options.show_limits) {
    std::cout << limits.table();
    return EXIT_SUCCESS;
  }
  fs::check_fuse(options);

  std::optional<Background> background;
  if (!options.foreground) background.emplace();
  // Callers' umasks come with their requests; ours must not be added.
  ::umask(0);
  lift_file_size_limit();
  fs::Filesystem filesystem(place.source.get(), limits.filesystem_options(options));
  // Before the scan, so that nothing that others do meanwhile on the source's filesystem is missed.
  const auto watcher = watch(options, place, filesystem);
  std::optional<ScanSummary> summary;
  if (options.scan == fs::ScanMode::wait) {
    tell_service_manager("STATUS=Writing out the filesystem of " + place.source_path);
    fs::write_out(place);
    summary = scan(options, limits, place, filesystem);
  }
  filesystem.start();
  fs::Session session(options, limits, place, filesystem);
  session.mount();
  const std::string announced = announcement(place, filesystem, summary);
  spdlog::info(announced);
  tell_service_manager("READY=1\nSTATUS=" + announced);
  if (background) {
    fs::log_to_syslog();
    background->live();
    spdlog::info(announced);
  }
  if (!watcher) spdlog::info("changes behind the mount are left to audits: {}", watcher.error());
  const bool ended_well = session.serve(watcher ? watcher->get() : nullptr);
  tell_service_manager("STOPPING=1");
  return ended_well ? EXIT_SUCCESS : EXIT_FAILURE;
}

/// run(), with what it throws turned into one line.
int run_or_explain(const fs::Options& options) {
  try {
    return run(options);
  } catch (const std::bad_alloc&) {
    spdlog::error(
        "not enough address space for these capacities: lower max_dirs or buffers "
        "(tallyfs --show-limits {} prints them all)",
        options.source);
  } catch (const std::exception& error) {
    spdlog::error("{}", error.what());
  }
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace tally::tools

int main(int argc, char** argv) {
  const tally::fs::CommandLine line = tally::fs::parse_command_line(argc, argv);
  std::cout << line.text << std::flush;
  for (const std::string& error : line.errors)
    std::cerr << "tallyfs: " << error << '\n';
  if (!line.runnable()) return line.exit_status;
  tally::fs::log_to_stderr(line.options.debug);
  return tally::tools::run_or_explain(line.options);
}
