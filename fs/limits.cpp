#include "fs/limits.hpp"

#include <sched.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdio>
#include <system_error>

#include <climits>

#include "core/descriptor_budget.hpp"
#include "core/descriptor_limit.hpp"
#include "core/dir_tree.hpp"
#include "core/hard_links.hpp"
#include "core/human_text.hpp"
#include "core/key_table.hpp"
#include "core/scan_state.hpp"
#include "fs/file_handle.hpp"
#include "fs/inode_table.hpp"
#include "fs/open_file.hpp"
#include "fs/preflight.hpp"

namespace tally::fs {
namespace {

// Where the filesystem below has no number of inodes (btrfs and most network filesystems say 0).
constexpr uint32_t directories_unknown = 1 << 24;
// The scale target is 100 million directories.
constexpr uint32_t directories_most = 1 << 27;
constexpr uint32_t directories_least = 1 << 10;
constexpr uint32_t linked_inodes_most = 1 << 24;
constexpr uint32_t inodes_least = 1 << 16;
// The kernel, whose own inodes and dentries take a kibibyte and more each, must be what runs out of
// memory first and forgets some: this many take 128 GiB of it.
constexpr uint32_t inodes_most = 1 << 27;
constexpr uint32_t open_files_most = 1 << 16;
constexpr uint32_t open_directories_most = 1 << 12;
// What one request may have open at a time: parents, a victim, a target.
constexpr uint32_t descriptors_per_request = 4;
// A requester that blocks in a slow lower filesystem must not hold up the others.
constexpr uint32_t request_threads_per_processor = 4;
constexpr uint32_t request_threads_least = 8;
constexpr uint32_t request_threads_most = 64;

constexpr uint64_t key_bytes = KeyTable::entry_bytes + KeyTable::bucket_bytes;
constexpr uint64_t key_address_bytes = KeyTable::entry_bytes + 2 * KeyTable::bucket_bytes;
constexpr uint64_t ring_cell_bytes = 2 * sizeof(uint64_t);
// Descriptors that are not counted: one for each mount below (FileHandles::mounts_max); each
// request thread's clone of /dev/fuse, and one that it opens for a moment (a caller's status, a
// copy to close); the ring, the eventfd and such a moment's one of each queue of FUSE over
// io_uring; and these: standard streams, the source, /dev/fuse, /proc/self/fd, syslog, those of
// ChangeWatcher, and room for what libraries open.
constexpr uint32_t descriptors_per_thread = 2;
constexpr uint32_t descriptors_per_uring_queue = 3;
constexpr uint32_t own_descriptors = 32;
constexpr uint32_t descriptors_least = 32;
// Of the others this part is for second descriptors of files that are read directly.
constexpr uint32_t direct_share = 4;

constexpr uint64_t request_buffer_bytes = (1 << 20) + 4096;
constexpr uint64_t uring_request_bytes = (1 << 20) + 4096;  // what is written, and a header
constexpr uint64_t stack_bytes = 8 << 20;
constexpr uint64_t stack_used_bytes = 16 << 10;
// Scanner: names in flight, which are few at a time.
constexpr uint64_t scanned_name_address_bytes = 256;

uint32_t clamp_count(uint64_t count, uint32_t least, uint32_t most) {
  return static_cast<uint32_t>(std::clamp<uint64_t>(count, least, most));
}

/// How many descriptors files and directories that are open through the mount may hold for as long
/// as they like. What is left is for the requests: whoever opens all he can must not keep others
/// from looking, listing, removing and closing.
uint32_t handles_within(uint32_t descriptors, uint32_t request_threads) {
  const uint32_t left = std::max(descriptors / 8, request_threads * descriptors_per_request);
  return descriptors - std::min(left, descriptors / 2);
}

std::vector<LimitTerm> terms_of(const Limits& limits, const Options& options,
                                const Machine& machine) {
  const std::string from_inodes =
      machine.lower_inodes != 0 ? "inodes of the filesystem below" : "default: no number below";
  const auto term = [](std::string name, uint64_t count, uint64_t bytes, uint64_t address_bytes,
                       std::string origin) {
    return LimitTerm{std::move(name), count, bytes, count * address_bytes, std::move(origin)};
  };
  const auto plain = [&](std::string name, uint64_t count, uint64_t bytes, std::string origin) {
    return term(std::move(name), count, bytes, bytes, std::move(origin));
  };
  const uint64_t directories = limits.directories_max;
  const uint64_t nodes = directories + DirTree::removed_max;
  const uint64_t linked = limits.linked_inodes_max;
  const uint64_t inodes = limits.inodes_max;
  return {
      term("directories", nodes, sizeof(DirNode) + key_bytes, sizeof(DirNode) + key_address_bytes,
           (options.directories_max ? "max_dirs" : from_inodes) + ", and " +
               std::to_string(DirTree::removed_max) + " removed"),
      plain("… while scanning", nodes, sizeof(ScanState), "directories"),
      term("… names meanwhile", directories, 0, scanned_name_address_bytes, "directories"),
      term("hard-linked inodes", linked, HardLinks::link_bytes + key_bytes,
           HardLinks::link_bytes + key_address_bytes, from_inodes),
      plain("… names of these", linked * HardLinks::names_per_inode, HardLinks::name_bytes,
            std::to_string(HardLinks::names_per_inode) + " per inode"),
      plain("… directories above", nodes, HardLinks::visit_bytes, "directories"),
      term("cached inodes", inodes, sizeof(Inode) + key_bytes, sizeof(Inode) + key_address_bytes,
           from_inodes),
      plain("… names of these", inodes, NAME_MAX + 1, "used where there are no file handles"),
      plain("open files", limits.open_files_max, sizeof(OpenFile), "descriptors"),
      plain("open directories", limits.open_directories_max, sizeof(OpenDirectory), "descriptors"),
      plain("stale directories", limits.stale_directories_max, ring_cell_bytes, "fixed"),
      plain("settling files", limits.settling_files_max, ring_cell_bytes, "fixed"),
      plain("read buffers", limits.buffers, limits.buffer_size_bytes,
            options.buffers ? "buffers, buffer_size" : "request threads"),
      term("request threads", limits.request_threads, request_buffer_bytes + stack_used_bytes,
           request_buffer_bytes + stack_bytes, "processors"),
      term("uring queues", limits.uring_queues,
           Limits::uring_queue_depth * uring_request_bytes + stack_used_bytes,
           Limits::uring_queue_depth * uring_request_bytes + stack_bytes,
           limits.uring_queues != 0 ? "processors the machine can have" : "off"),
      plain("descriptors", limits.descriptors_max, 0,
            "RLIMIT_NOFILE " + std::to_string(machine.descriptors) + " less our own"),
      plain("… for direct reads", limits.direct_descriptors_max, 0, "a quarter, with io=direct"),
  };
}

}  // namespace

Machine Machine::examine(int source_fd, UringMode uring) {
  struct statvfs below;
  if (::fstatvfs(source_fd, &below) != 0)
    throw std::system_error(errno, std::generic_category(), "statvfs of the source");
  cpu_set_t allowed;
  const bool known = ::sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  return {.lower_inodes = below.f_files,
          .descriptors = raise_descriptor_limit(),
          .processors = known ? static_cast<uint32_t>(CPU_COUNT(&allowed)) : 1,
          // As libfuse counts them (lib/fuse_uring.c, fuse_create_ring).
          .uring_queues = uring_wanted(uring) ? static_cast<uint32_t>(::get_nprocs_conf()) : 0};
}

Limits Limits::compute(const Options& options, const Machine& machine) {
  const bool known = machine.lower_inodes != 0;
  Limits limits;
  limits.directories_max = options.directories_max.value_or(
      known ? clamp_count(machine.lower_inodes, directories_least, directories_most)
            : directories_unknown);
  limits.linked_inodes_max =
      known ? clamp_count(machine.lower_inodes, inodes_least, linked_inodes_most)
            : linked_inodes_most;
  limits.inodes_max =
      known ? clamp_count(machine.lower_inodes, inodes_least, inodes_most) : inodes_most;
  limits.stale_directories_max = 1 << 14;
  limits.settling_files_max = 1 << 16;
  limits.request_threads = clamp_count(uint64_t{machine.processors} * request_threads_per_processor,
                                       request_threads_least, request_threads_most);
  limits.uring_queues = machine.uring_queues;
  const uint64_t reserved =
      FileHandles::mounts_max + uint64_t{descriptors_per_thread} * limits.request_threads +
      uint64_t{descriptors_per_uring_queue} * limits.uring_queues + own_descriptors;
  const uint64_t available = machine.descriptors > reserved ? machine.descriptors - reserved : 0;
  const uint64_t direct = options.data_path == DataPath::direct ? available / direct_share : 0;
  limits.direct_descriptors_max = static_cast<uint32_t>(direct);
  limits.descriptors_max = clamp_count(available - direct, descriptors_least, UINT32_MAX);
  const uint32_t handles = handles_within(limits.descriptors_max, limits.request_threads);
  limits.open_directories_max = std::min(handles / 8, open_directories_most);
  limits.open_files_max = std::min(handles - limits.open_directories_max, open_files_most);
  limits.buffers = options.buffers.value_or(limits.request_threads);
  limits.buffer_size_bytes = options.buffer_size_bytes;
  limits.scan_threads = options.scan_threads.value_or(machine.processors);
  limits.terms = terms_of(limits, options, machine);
  return limits;
}

FilesystemOptions Limits::filesystem_options(const Options& options) const {
  return {.data_path = options.data_path,
          .directory_size = options.directory_size,
          .list_counters = options.list_counters,
          .one_file_system = options.one_file_system,
          .attribute_timeout_s = options.attribute_timeout_s,
          .entry_timeout_s = 1.0,
          .directories_max = directories_max,
          .linked_inodes_max = linked_inodes_max,
          .inodes_max = inodes_max,
          .descriptors_max = descriptors_max,
          .direct_descriptors_max = direct_descriptors_max,
          .open_files_max = open_files_max,
          .open_directories_max = open_directories_max,
          .stale_directories_max = stale_directories_max,
          .buffers = buffers,
          .buffer_size_bytes = buffer_size_bytes};
}

std::string Limits::table() const {
  std::string text;
  char line[160];
  std::snprintf(line, sizeof line, "%-20s %12s %12s %14s  %s\n", "", "at most", "bytes each",
                "address space", "from");
  text += line;
  uint64_t sum_bytes = 0;
  for (const LimitTerm& term : terms) {
    // The name may begin with an ellipsis, which takes three bytes and one column.
    const int width = term.name.starts_with("…") ? 22 : 20;
    std::snprintf(line, sizeof line, "%-*s %12llu %12llu %14s  %s\n", width, term.name.c_str(),
                  static_cast<unsigned long long>(term.count),
                  static_cast<unsigned long long>(term.bytes_each),
                  bytes_text(term.bytes_address).c_str(), term.origin.c_str());
    text += line;
    sum_bytes += term.bytes_address;
  }
  std::snprintf(line, sizeof line, "%-20s %12s %12s %14s\n", "together", "", "",
                bytes_text(sum_bytes).c_str());
  text += line;
  return text + "Address space is reserved at start; memory is taken as it is used.\n";
}

}  // namespace tally::fs
