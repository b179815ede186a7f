// A lower filesystem that runs full, or a quota that does, in the middle of writing: the errno is
// the lower filesystem's, the totals don't drift, and when there is room again all goes on.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/mount/child_process.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/lower_filesystem.hpp"
#include "tests/mount/mount.hpp"

using namespace tally::test;
using tally::UniqueFd;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t chunk_bytes = 3 << 20;

UniqueFd create(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  REQUIRE(fd);
  return fd;
}

/// Writes until an error, whose errno it returns; 0 if there is none within `bytes_max`.
int fill(int fd, int64_t bytes_max) {
  const std::string chunk(chunk_bytes, 'c');
  while (bytes_max > 0) {
    const ssize_t written = ::write(fd, chunk.data(), chunk.size());
    if (written < 0) return errno;
    bytes_max -= written;
  }
  return 0;
}

int64_t size_of(const std::string& path) {
  struct stat st{};
  REQUIRE(::stat(path.c_str(), &st) == 0);
  return st.st_size;
}

/// Writes once there is room again, in due time: the kernel tells of the last close of a file, and
/// that it has forgotten it, after close(2) has returned, and btrfs reuses space when its
/// transaction ends.
void check_recovers(const Mount& mount, int fd, const std::string& chunk, off_t offset) {
  ssize_t written = -1;
  for (int tries = 0; written != static_cast<ssize_t>(chunk.size()) && tries < 200; ++tries) {
    std::this_thread::sleep_for(20ms);
    sync_filesystem(mount.lower());
    written = ::pwrite(fd, chunk.data(), chunk.size(), offset);
  }
  CHECK(written == static_cast<ssize_t>(chunk.size()));
  CHECK(::fsync(fd) == 0);
}

void check_runs_full(const Mount& mount, int expected_errno, int64_t capacity_bytes) {
  REQUIRE(::mkdir(mount.at("first").c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.at("second").c_str(), 0755) == 0);
  const UniqueFd kept = create(mount.at("first/kept"));
  UniqueFd filler = create(mount.at("second/filler"));
  const std::string chunk(chunk_bytes, 'k');
  REQUIRE(::write(kept.get(), chunk.data(), chunk.size()) == static_cast<ssize_t>(chunk_bytes));

  CHECK(fill(filler.get(), 2 * capacity_bytes) == expected_errno);
  const int64_t written = size_of(mount.lower("second/filler"));
  CHECK(written > 0);
  CHECK(counter(mount.at("second"), "rbytes") == written);
  CHECK(counter(mount.at(), "rbytes") == written + static_cast<int64_t>(chunk_bytes));

  // Nothing more goes in, neither by writing nor by allocating, and nothing of it is counted.
  CHECK(::write(kept.get(), chunk.data(), chunk.size()) < static_cast<ssize_t>(chunk_bytes));
  CHECK(::fallocate(kept.get(), 0, 0, 2 * capacity_bytes) == -1);
  CHECK(errno == expected_errno);
  check_counters(mount);

  REQUIRE(::unlink(mount.at("second/filler").c_str()) == 0);
  CHECK(counter(mount.at(), "orphan_bytes") == written);
  filler.reset();
  check_recovers(mount, kept.get(), chunk, chunk_bytes);
  CHECK(counter(mount.at(), "orphan_bytes") == 0);
  check_counters(mount);
}

}  // namespace

TEST_CASE("a filesystem that runs full in the middle of writing leaves exact totals and recovers") {
  const LowerKind kind = GENERATE(from_range(all_lower_kinds));
  if (!can_mount() || !can_mount_lower(kind)) return;
  CAPTURE(kind);
  const uint64_t size_mib = kind == LowerKind::xfs ? 300 : kind == LowerKind::btrfs ? 128 : 24;
  const LowerFilesystem lower(kind, {.size_mib = size_mib});
  const MountFolders folders(lower.path());
  const Mount mount(folders, {.options = "settle=1"});
  check_runs_full(mount, ENOSPC, static_cast<int64_t>(size_mib << 20));
}

TEST_CASE("what is written through a mapping does not take the blocks reserved for root") {
  if (!can_mount() || !can_mount_lower(LowerKind::ext4)) return;
  constexpr off_t much = 64 << 20;
  const LowerFilesystem lower(LowerKind::ext4,
                              {.size_mib = 64, .mkfs_options = {"-m", "40", "-b", "4096"}});
  const MountFolders folders(lower.path());
  const Mount mount(folders);
  const std::string path = mount.at("mapped");
  const UniqueFd fd = create(path);
  REQUIRE(::fchown(fd.get(), 65534, 65534) == 0);
  const int status = run_as(65534, 65534, [&] {
    const UniqueFd own(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (::ftruncate(own.get(), much) != 0) return 2;
    void* const pages = ::mmap(nullptr, much, PROT_READ | PROT_WRITE, MAP_SHARED, own.get(), 0);
    if (pages == MAP_FAILED) return 3;
    std::memset(pages, 'm', much);
    return ::msync(pages, much, MS_SYNC) == 0 ? 4 : 0;
  });
  // It fails, or the pages that can't be written have cost the process its life before.
  CHECK((status == 0 || status == 128 + SIGBUS));
  struct statvfs now{};
  REQUIRE(::statvfs(lower.path().c_str(), &now) == 0);
  CHECK(now.f_bfree - now.f_bavail > 5000);  // 40 % of 64 MiB
  REQUIRE(::truncate(path.c_str(), 0) == 0);
  check_counters(mount);
}

TEST_CASE("a quota that runs full in the middle of writing leaves exact totals and recovers") {
  // Of the kinds here btrfs needs nothing for it that a kernel may be built without.
  if (!can_mount() || !can_mount_lower(LowerKind::btrfs)) return;
  const LowerFilesystem lower(LowerKind::btrfs);
  REQUIRE(run({"btrfs", "quota", "enable", lower.path()}).status == 0);
  REQUIRE(run({"btrfs", "quota", "rescan", "-w", lower.path()}).status == 0);
  REQUIRE(run({"btrfs", "qgroup", "limit", "16M", "0/5", lower.path()}).status == 0);
  const MountFolders folders(lower.path());
  const Mount mount(folders, {.options = "settle=1"});
  check_runs_full(mount, EDQUOT, 16 << 20);
}
