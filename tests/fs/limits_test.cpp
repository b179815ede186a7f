#include "fs/limits.hpp"

#include <fcntl.h>

#include <bit>
#include <fstream>

#include <catch2/catch.hpp>

#include "core/scanner.hpp"
#include "core/unique_fd.hpp"
#include "tests/temp_folder.hpp"

using tally::fs::Limits;
using tally::fs::Machine;
using tally::fs::Options;
using tally::test::TempFolder;

namespace {

constexpr Machine small_machine = {.lower_inodes = 200'000, .descriptors = 20'000, .processors = 2};

[[maybe_unused]] uint64_t address_space_bytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t pages = 0;
  statm >> pages;
  return pages * 4096;
}

}  // namespace

TEST_CASE("the tree has room for as many directories as the filesystem below has inodes") {
  const Limits limits = Limits::compute({}, small_machine);
  CHECK(limits.directories_max == 200'000);
  CHECK(limits.linked_inodes_max == 200'000);
  CHECK(limits.inodes_max == 200'000);
}

TEST_CASE("max_dirs, buffers and scan_threads decide where they are given") {
  Options options;
  options.directories_max = 77;
  options.buffers = 5;
  options.buffer_size_bytes = 8192;
  options.scan_threads = 9;
  const Limits limits = Limits::compute(options, small_machine);
  CHECK(limits.directories_max == 77);
  CHECK(limits.buffers == 5);
  CHECK(limits.buffer_size_bytes == 8192);
  CHECK(limits.scan_threads == 9);
}

TEST_CASE("a filesystem that has no number of inodes gets a stated default") {
  const Limits limits =
      Limits::compute({}, {.lower_inodes = 0, .descriptors = 1024, .processors = 1});
  CHECK(limits.directories_max == 1 << 24);
  CHECK(limits.inodes_max == 1 << 27);
  CHECK(limits.table().find("default: no number below") != std::string::npos);
}

TEST_CASE("capacities are bounded on both sides, whatever the filesystem says") {
  const Limits huge =
      Limits::compute({}, {.lower_inodes = UINT64_MAX, .descriptors = 1 << 20, .processors = 1000});
  CHECK(huge.directories_max == 1 << 27);
  CHECK(huge.inodes_max == 1 << 27);
  CHECK(huge.open_files_max == 1 << 16);
  CHECK(huge.request_threads == 64);
  const Limits tiny = Limits::compute({}, {.lower_inodes = 16, .descriptors = 64, .processors = 1});
  CHECK(tiny.directories_max == 1 << 10);
  CHECK(tiny.inodes_max == 1 << 16);
  CHECK(tiny.descriptors_max == 32);
  CHECK(tiny.request_threads == 8);
}

TEST_CASE("some descriptors stay for the daemon itself, more with more threads and queues") {
  const auto left_over = [](uint32_t processors, uint32_t uring_queues) {
    const Machine machine = {.lower_inodes = 1,
                             .descriptors = 20'000,
                             .processors = processors,
                             .uring_queues = uring_queues};
    const Limits limits = Limits::compute({}, machine);
    return machine.descriptors - limits.descriptors_max - limits.direct_descriptors_max;
  };
  CHECK(left_over(2, 0) >= 2 * 8);
  CHECK(left_over(16, 0) >= 2 * 64);
  CHECK(left_over(2, 0) < 200);
  INFO("a container that may run on two of 64 processors has 64 queues");
  CHECK(left_over(2, 64) == left_over(2, 0) + 3 * 64);
}

TEST_CASE("the queues of FUSE over io_uring have their term") {
  const auto address_bytes = [](uint32_t uring_queues) {
    Machine machine = small_machine;
    machine.uring_queues = uring_queues;
    uint64_t sum_bytes = 0;
    for (const auto& term : Limits::compute({}, machine).terms)
      sum_bytes += term.bytes_address;
    return sum_bytes;
  };
  CHECK(address_bytes(64) - address_bytes(0) >= uint64_t{64} * 8 * (1 << 20));
}

TEST_CASE("what is open through the mount leaves descriptors to the requests") {
  for (const uint32_t descriptors : {64U, 256U, 1024U, 20'000U, 1U << 20}) {
    INFO(descriptors);
    const Limits limits =
        Limits::compute({}, {.lower_inodes = 1000, .descriptors = descriptors, .processors = 2});
    const uint32_t handles = limits.open_files_max + limits.open_directories_max;
    CHECK(limits.open_files_max > 0);
    CHECK(limits.open_directories_max > 0);
    CHECK(handles >= std::min(limits.descriptors_max / 2, 1U << 16));
    CHECK(limits.descriptors_max - handles >= limits.descriptors_max / 8);
    if (descriptors >= 256) CHECK(limits.descriptors_max - handles >= 4 * limits.request_threads);
  }
}

TEST_CASE("direct reads have a share of the descriptors, which they don't have with io=buffered") {
  const Limits direct = Limits::compute({}, small_machine);
  CHECK(direct.direct_descriptors_max > 1000);
  CHECK(direct.direct_descriptors_max < direct.descriptors_max / 2);
  Options options;
  options.data_path = tally::fs::DataPath::buffered;
  const Limits buffered = Limits::compute(options, small_machine);
  CHECK(buffered.direct_descriptors_max == 0);
  CHECK(buffered.descriptors_max == direct.descriptors_max + direct.direct_descriptors_max);
}

TEST_CASE("every request thread can have a buffer at the same time") {
  for (const uint32_t processors : {1U, 2U, 16U, 200U}) {
    const Limits limits =
        Limits::compute({}, {.lower_inodes = 1000, .descriptors = 1024, .processors = processors});
    CHECK(limits.buffers >= limits.request_threads);
  }
}

TEST_CASE("what the filesystem is given are these limits") {
  Options options;
  options.data_path = tally::fs::DataPath::buffered;
  options.directory_size = tally::fs::DirectorySize::native;
  options.list_counters = true;
  options.attribute_timeout_s = 0.5;
  const Limits limits = Limits::compute(options, small_machine);
  const tally::fs::FilesystemOptions given = limits.filesystem_options(options);
  CHECK(given.data_path == tally::fs::DataPath::buffered);
  CHECK(given.directory_size == tally::fs::DirectorySize::native);
  CHECK(given.list_counters);
  CHECK(given.attribute_timeout_s == 0.5);
  CHECK(given.directories_max == limits.directories_max);
  CHECK(given.linked_inodes_max == limits.linked_inodes_max);
  CHECK(given.inodes_max == limits.inodes_max);
  CHECK(given.descriptors_max == limits.descriptors_max);
  CHECK(given.direct_descriptors_max == limits.direct_descriptors_max);
  CHECK(given.open_files_max == limits.open_files_max);
  CHECK(given.open_directories_max == limits.open_directories_max);
  CHECK(std::has_single_bit(given.stale_directories_max));
  CHECK(given.buffers == limits.buffers);
  CHECK(given.buffer_size_bytes == limits.buffer_size_bytes);
}

TEST_CASE("the filesystem and the scanner reserve the address space that the table says") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  SUCCEED("sanitizers reserve address space of their own");
#else
  const TempFolder folder;
  const tally::UniqueFd source(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(source);
  // Large enough for these terms to drown what else a process maps meanwhile.
  const Limits limits =
      Limits::compute({}, {.lower_inodes = 1 << 23, .descriptors = 20'000, .processors = 2});
  uint64_t expected_bytes = 0;
  for (const auto& term : limits.terms)
    if (term.name != "request threads") expected_bytes += term.bytes_address;

  const uint64_t before_bytes = address_space_bytes();
  tally::fs::Filesystem filesystem(source.get(), limits.filesystem_options({}));
  const tally::Scanner scanner(filesystem.accounts().tree(), filesystem.accounts().links(),
                               {.threads = 1});
  const auto taken_bytes = static_cast<double>(address_space_bytes() - before_bytes);
  CHECK(taken_bytes == Approx(static_cast<double>(expected_bytes)).epsilon(0.02));
#endif
}

TEST_CASE("nodes of removed directories are in the sum of what directories take") {
  Options options;
  options.directories_max = 1000;
  const Limits limits = Limits::compute(options, small_machine);
  CHECK(limits.terms[0].name == "directories");
  CHECK(limits.terms[0].count == 1000 + tally::DirTree::removed_max);
  CHECK(limits.terms[0].count == tally::DirTree(1000).index_max());
}

TEST_CASE("the table names every term and adds them up") {
  const Limits limits = Limits::compute({}, small_machine);
  const std::string table = limits.table();
  for (const auto& term : limits.terms) {
    CHECK(term.bytes_address >= term.count * term.bytes_each);
    CHECK(table.find(term.name) != std::string::npos);
  }
  CHECK(table.find("together") != std::string::npos);
}
