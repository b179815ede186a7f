#include "core/file_stat.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <limits>
#include <string>

#include <catch2/catch.hpp>

#include "core/unique_fd.hpp"
#include "tests/temp_folder.hpp"

using namespace tally;
using namespace tally::test;

TEST_CASE("an automount point is stat'ed as what is mounted on it, on first contact too") {
  const TempFolder folder("stat");
  const std::string debugfs = folder.path() + "/debugfs";
  std::filesystem::create_directory(debugfs);
  // The kernel mounts tracefs on debugfs/tracing as soon as somebody goes there.
  const bool mounted = ::mount("debugfs", debugfs.c_str(), "debugfs", 0, nullptr) == 0;
  if (!mounted || !std::filesystem::exists(debugfs + "/tracing")) {
    if (mounted) ::umount2(debugfs.c_str(), MNT_DETACH);
    SUCCEED("tracefs is the only automount point that is at hand, and not everywhere");
    return;
  }
  {
    const UniqueFd parent(::open(debugfs.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const auto on_contact = stat_entry_at(parent.get(), "tracing");
    const UniqueFd tracing(::openat(parent.get(), "tracing", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const auto afterwards = stat_fd(tracing.get());
    CHECK(on_contact->stat.key == afterwards->key);
    CHECK(on_contact->is_mount_root);
  }
  ::umount2(debugfs.c_str(), MNT_DETACH);
}

TEST_CASE("a directory on which nothing is mounted is no mount root, and a mount point is one") {
  const UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  CHECK(stat_entry_at(root.get(), "proc")->is_mount_root);
  const TempFolder folder("stat");
  CHECK_FALSE(stat_entry_at(AT_FDCWD, folder.path().c_str())->is_mount_root);
}

TEST_CASE("a time that nanoseconds can't express is the first or the last that they can") {
  const auto ctime_ns = [](int64_t seconds, uint32_t nanoseconds) {
    struct statx stx = {};
    stx.stx_ctime.tv_sec = seconds;
    stx.stx_ctime.tv_nsec = nanoseconds;
    return FileStat::from(stx).ctime_ns;
  };
  constexpr TimeNs last_ns = std::numeric_limits<TimeNs>::max();
  CHECK(ctime_ns(1'700'000'000, 5) == 1'700'000'000'000'000'005);
  CHECK(ctime_ns(-1, 0) == -1'000'000'000);
  CHECK(ctime_ns(last_ns / 1'000'000'000, 0) > 0);
  CHECK(ctime_ns(last_ns / 1'000'000'000, 999'999'999) == last_ns);
  CHECK(ctime_ns(9'300'000'000, 0) == last_ns);
  CHECK(ctime_ns(std::numeric_limits<int64_t>::min(), 0) == std::numeric_limits<TimeNs>::min());
}
