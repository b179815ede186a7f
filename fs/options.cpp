#include "fs/options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <utility>

#include <CLI/CLI.hpp>
#include <fuse_lowlevel.h>

namespace tally::fs {
namespace {

constexpr int usage_status = 2;

/// What is wrong with an option's value, to be put behind "option name=value: "; empty if nothing.
using Complaint = std::string;

template <class Number>
Complaint read_number(std::string_view text, Number low, Number high, Number& value) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // So written that it refuses what is not a number, too.
  const bool in_range = number >= low && number <= high;
  if (error != std::errc() || end != text.data() + text.size() || !in_range) {
    std::ostringstream expected;
    expected << "expected a number from " << low << " to " << high;
    return expected.str();
  }
  value = number;
  return {};
}

Complaint read_count(std::string_view text, uint32_t low, uint32_t high,
                     std::optional<uint32_t>& value) {
  return read_number(text, low, high, value.emplace());
}

struct BufferSize {
  static constexpr uint32_t page_bytes = 4096;
  // The kernel asks for at most fs.fuse.max_pages_limit = 256 pages at once.
  static constexpr uint32_t max_bytes = 1 << 20;
};

Complaint read_buffer_size(std::string_view text, uint32_t& value) {
  if (auto complaint = read_number(text, BufferSize::page_bytes, BufferSize::max_bytes, value);
      !complaint.empty())
    return complaint;
  if (value % BufferSize::page_bytes != 0) return "expected a multiple of 4096";
  return {};
}

Complaint read_data_path(std::string_view text, Options& options) {
  if (text == "direct")
    options.data_path = DataPath::direct;
  else if (text == "buffered")
    options.data_path = DataPath::buffered;
  else
    return "expected direct or buffered";
  return {};
}

Complaint read_uring(std::string_view text, Options& options) {
  if (text == "auto")
    options.uring = UringMode::automatic;
  else if (text == "on")
    options.uring = UringMode::on;
  else if (text == "off")
    options.uring = UringMode::off;
  else
    return "expected auto, on or off";
  return {};
}

Complaint read_directory_size(std::string_view text, Options& options) {
  if (text == "recursive")
    options.directory_size = DirectorySize::recursive;
  else if (text == "native")
    options.directory_size = DirectorySize::native;
  else
    return "expected recursive or native";
  return {};
}

Complaint read_scan_mode(std::string_view text, Options& options) {
  if (text == "background")
    options.scan = ScanMode::background;
  else if (text == "wait")
    options.scan = ScanMode::wait;
  else
    return "expected background or wait";
  return {};
}

Complaint read_watch_mode(std::string_view text, Options& options) {
  if (text == "auto")
    options.watch = WatchMode::automatic;
  else if (text == "off")
    options.watch = WatchMode::off;
  else
    return "expected auto or off";
  return {};
}

/// An option of ours: with a value, or (`flag`) without.
struct Rule {
  std::string_view name;
  bool flag;
  Complaint (*apply)(std::string_view value, Options& options);
};

constexpr uint32_t counts_max = 1 << 27;  // directories: the scale target and some
constexpr uint32_t threads_max = 1024;

constexpr std::array rules = {
    Rule{"io", false, [](std::string_view v, Options& o) { return read_data_path(v, o); }},
    Rule{"uring", false, [](std::string_view v, Options& o) { return read_uring(v, o); }},
    Rule{"dirsize", false,
         [](std::string_view v, Options& o) { return read_directory_size(v, o); }},
    Rule{"list_xattr", true,
         [](std::string_view, Options& o) { return o.list_counters = true, Complaint(); }},
    Rule{"one_file_system", true,
         [](std::string_view, Options& o) { return o.one_file_system = true, Complaint(); }},
    Rule{"max_dirs", false,
         [](std::string_view v, Options& o) {
           return read_count(v, 1, counts_max, o.directories_max);
         }},
    Rule{"buffers", false,
         [](std::string_view v, Options& o) { return read_count(v, 1, 65536, o.buffers); }},
    Rule{"buffer_size", false,
         [](std::string_view v, Options& o) { return read_buffer_size(v, o.buffer_size_bytes); }},
    Rule{"scan_threads", false,
         [](std::string_view v, Options& o) {
           return read_count(v, 1, threads_max, o.scan_threads);
         }},
    Rule{"queue_depth", false,
         [](std::string_view v, Options& o) {
           return read_number(v, uint32_t{1}, uint32_t{4096}, o.queue_depth);
         }},
    Rule{"scan", false, [](std::string_view v, Options& o) { return read_scan_mode(v, o); }},
    Rule{"audit_iops", false,
         [](std::string_view v, Options& o) {
           return read_number(v, uint32_t{0}, uint32_t{1'000'000}, o.audit_operations_per_s);
         }},
    Rule{"watch", false, [](std::string_view v, Options& o) { return read_watch_mode(v, o); }},
    Rule{"attr_timeout", false,
         [](std::string_view v, Options& o) {
           return read_number(v, 0.0, 3600.0, o.attribute_timeout_s);
         }},
    Rule{"settle", false,
         [](std::string_view v, Options& o) {
           return read_number(v, 0.0, 3600.0, o.settling_delay_s);
         }},
    Rule{"allow_other", true,
         [](std::string_view, Options& o) { return o.allow_other = true, Complaint(); }},
    Rule{"debug", true, [](std::string_view, Options& o) { return o.debug = true, Complaint(); }},
};

/// Restrictions that are passed to mount(2) as they are.
constexpr std::array mount_restrictions = {
    "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "sync", "dirsync", "nosymfollow"};

/// The opposites of the above, what is always on, and what concerns mount(8) and fstab(5) only.
constexpr std::array ignored = {"rw",
                                "suid",
                                "dev",
                                "exec",
                                "atime",
                                "diratime",
                                "async",
                                "symfollow",
                                "relatime",
                                "defaults",
                                "norelatime",
                                "strictatime",
                                "nostrictatime",
                                "default_permissions",
                                "auto",
                                "noauto",
                                "user",
                                "nouser",
                                "users",
                                "owner",
                                "group",
                                "nofail",
                                "_netdev",
                                "silent"};

bool is_ignored(std::string_view option) {
  return std::ranges::find(ignored, option) != ignored.end() || option.starts_with("x-") ||
         option.starts_with("comment=") || option.starts_with("user=");
}

void fail(CommandLine& line, std::string message) {
  line.errors.push_back(std::move(message));
  line.exit_status = usage_status;
}

void apply_option(std::string_view option, CommandLine& line) {
  if (option.empty() || is_ignored(option)) return;
  if (std::ranges::find(mount_restrictions, option) != mount_restrictions.end()) {
    line.options.mount_flags.emplace_back(option);
    return;
  }
  const std::size_t equals = option.find('=');
  const bool has_value = equals != std::string_view::npos;
  const std::string_view name = option.substr(0, equals);
  const std::string_view value = has_value ? option.substr(equals + 1) : std::string_view();
  const auto rule = std::ranges::find(rules, name, &Rule::name);
  const std::string shown(option);
  if (rule == rules.end())
    return fail(line, "unknown option " + shown + " (tallyfs --help lists them all)");
  if (rule->flag && has_value) return fail(line, "option " + shown + ": takes no value");
  if (!rule->flag && !has_value) return fail(line, "option " + shown + ": a value is missing");
  if (name == "io" && value == "passthrough") {
    line.errors.emplace_back(
        "option io=passthrough: not available in this version: use io=direct or io=buffered");
    line.exit_status = std::max(line.exit_status, 1);
    return;
  }
  if (const Complaint complaint = rule->apply(value, line.options); !complaint.empty())
    fail(line, "option " + shown + ": " + complaint);
}

constexpr auto option_help = R"(Options for -o, separated by commas:
  io=direct|buffered         how file data is read (direct)
  uring=auto|on|off          FUSE over io_uring, where kernel and libfuse have it (auto)
  dirsize=recursive|native   what the size of a directory says (recursive)
  list_xattr                 show the counters in listxattr, too
  one_file_system            leave out what is mounted below SOURCE, and subvolumes
  max_dirs=N                 room for N directories (from the filesystem below)
  buffers=N, buffer_size=N   buffers for direct reads, and the bytes of each (threads; 1048576)
  scan=background|wait       whether the mount is up at once, or when it is scanned (background)
  scan_threads=N             threads that scan (from the processors)
  queue_depth=N              directories in flight per scanning thread, with scan=wait (64)
  audit_iops=N               operations per second of the background audit, 0 for none (100)
  watch=auto|off             recount what others change below a mount elsewhere (auto)
  attr_timeout=S             seconds for which the kernel may remember attributes (1)
  settle=S                   seconds after which a file that was written to is looked at again,
                             for blocks that move by themselves (30)
  allow_other                let other users in (default for root)
  ro, nosuid, nodev, noexec, noatime, nodiratime, sync, dirsync, nosymfollow
                             restrictions of the mount, in addition to those of the one below

Totals: ls -l MOUNTPOINT; getfattr -n user.tally.rbytes DIRECTORY
Audit:  setfattr -n user.tally.audit -v now MOUNTPOINT; getfattr -n user.tally.audit MOUNTPOINT
Unmount: umount MOUNTPOINT (root), fusermount3 -u MOUNTPOINT
)";

}  // namespace

void parse_option_list(std::string_view list, CommandLine& line) {
  for (;;) {
    const std::size_t comma = list.find(',');
    apply_option(list.substr(0, comma), line);
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

CommandLine parse_command_line(int argc, const char* const* argv) {
  CommandLine line;
  Options& options = line.options;
  std::vector<std::string> lists;
  CLI::App app("Mounts over a directory and keeps the size of every folder exact and live.",
               "tallyfs");
  app.set_version_flag("-V,--version", "tallyfs " TALLYFS_VERSION " (libfuse " +
                                           std::string(fuse_pkgversion()) + ")");
  app.set_help_flag("-h,--help", "Print this help");
  app.add_flag("-f,--foreground", options.foreground, "Stay in the foreground");
  app.add_flag("-d,--debug", options.debug, "Log every request; implies -f");
  app.add_flag("--show-limits", options.show_limits, "Print all capacities and exit");
  app.add_option("-o", lists, "Options, see below")->allow_extra_args(false);
  app.add_option("SOURCE", options.source, "The directory to count")->required();
  app.add_option("MOUNTPOINT", options.mountpoint, "Where to mount (over SOURCE)");
  app.footer(option_help);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    line.text = app.help();
    return line;
  } catch (const CLI::CallForVersion&) {
    line.text = app.version() + "\n";
    return line;
  } catch (const CLI::ParseError& error) {
    fail(line, std::string(error.what()) + " (see tallyfs --help)");
    return line;
  }
  for (const std::string& list : lists)
    parse_option_list(list, line);
  if (options.debug) options.foreground = true;
  if (options.mountpoint.empty()) options.mountpoint = options.source;
  return line;
}

}  // namespace tally::fs
