#include "tools/scan_command.hpp"

#include <fcntl.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <stdexcept>

#include "core/descriptor_limit.hpp"
#include "core/dir_tree.hpp"
#include "core/hard_links.hpp"
#include "core/open_without_mounts.hpp"
#include "core/scanner.hpp"
#include "core/unique_fd.hpp"
#include "tools/exit_status.hpp"
#include "tools/scan_progress.hpp"
#include "tools/scan_report.hpp"

namespace tally::tools {

namespace {

/// Room for as many as the filesystem has inodes. Other filesystems may be mounted below, and some
/// don't tell: never less than a good many, which costs address space only.
uint32_t inodes_max(int fd) {
  constexpr uint64_t at_least = 16 << 20;
  constexpr uint64_t at_most = 200 << 20;
  struct statvfs filesystem = {};
  ::fstatvfs(fd, &filesystem);
  const uint64_t inodes = filesystem.f_files - filesystem.f_ffree;
  return static_cast<uint32_t>(std::clamp<uint64_t>(inodes, at_least, at_most));
}

}  // namespace

CLI::App* ScanCommand::add_to(CLI::App& app) {
  CLI::App* line = app.add_subcommand("scan", "Scan a directory once and print its totals");
  line->add_option("DIR", directory_, "the directory")->capture_default_str();
  line->add_flag("--json", json_, "print JSON");
  line->add_flag("-x,--one-file-system", one_file_system_,
                 "leave out what is mounted below, and subvolumes");
  line->add_option("--top", top_, "also the N directories that take most room on disk")
      ->type_name("N");
  line->add_option("--threads", threads_, "threads that scan (default: one for each processor)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  line->add_option("--queue-depth", queue_depth_,
                   "of each thread's io_uring; 0: plain system calls")
      ->type_name("N")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  line->add_option("--max-dirs", max_dirs_, "room for directories (default: from the filesystem)")
      ->type_name("N")
      ->check(CLI::Range(1u, 1u << 31));
  line->add_option("--max-links", max_links_,
                   "room for files with several names (default: from the filesystem)")
      ->type_name("N")
      ->check(CLI::Range(1u, 1u << 31));
  return line;
}

int ScanCommand::run() {
  UniqueFd source(::open(directory_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!source)
    throw std::runtime_error("cannot scan " + directory_ + ": " + Errno{errno}.message());
  if (one_file_system_) {
    // Without the permission to it, directories that something is mounted on are left out.
    if (auto alone = open_without_mounts(source.get())) source = *std::move(alone);
  }

  raise_descriptor_limit();
  DirTree tree(max_dirs_ != 0 ? max_dirs_ : inodes_max(source.get()));
  HardLinks links(tree, max_links_ != 0 ? max_links_ : inodes_max(source.get()));
  std::optional<ScanProgress> progress(std::in_place, directory_);
  Scanner scanner(tree, links,
                  {.threads = threads_,
                   .queue_depth = queue_depth_,
                   .keep_names = top_ != 0,
                   .one_file_system = one_file_system_,
                   .events = progress->events()});
  const auto summary = scanner.run(source.get());
  progress.reset();  // what is reported next begins in a line of its own
  if (!summary)
    throw std::runtime_error("cannot scan " + directory_ + ": " + summary.error().message());

  ScanReport report{.directory = directory_,
                    .tree = tree,
                    .scanner = scanner,
                    .summary = *summary,
                    .largest = std::nullopt};
  if (top_ != 0) report.largest = largest_directories(tree, top_);
  report.print_errors();
  if (json_) {
    report.print_json();
  } else {
    report.print();
  }
  return report.is_complete() ? exit_ok : exit_incomplete;
}

}  // namespace tally::tools
