#include "tests/mount/lower_filesystem.hpp"

#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/mount/child_process.hpp"

using namespace tally::test;
using namespace std::chrono_literals;

namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool is_mounted(const std::string& path) {
  return text_of("/proc/self/mountinfo").find(" " + path + " ") != std::string::npos;
}

}  // namespace

TEST_CASE("a lower filesystem is of the kind and about the size asked for and goes without trace") {
  const LowerKind kind = GENERATE(from_range(all_lower_kinds));
  CAPTURE(kind);
  if (!can_mount_lower(kind)) return;
  std::string path;
  {
    const LowerFilesystem lower(kind);
    path = lower.path();
    CHECK(text_of("/proc/self/mountinfo").find(" - " + std::string(name_of(kind)) + " ") !=
          std::string::npos);
    struct statfs statistics{};
    REQUIRE(::statfs(path.c_str(), &statistics) == 0);
    const auto size_mib =
        statistics.f_blocks * static_cast<uint64_t>(statistics.f_bsize) / (1 << 20);
    CHECK(size_mib > 200);
    CHECK(size_mib <= 320);
    std::ofstream(path + "/file") << "text";
    CHECK(text_of(path + "/file") == "text");
  }
  CHECK_FALSE(is_mounted(path));
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("many lower filesystems are there at once") {
  if (!can_mount_lower(LowerKind::ext4)) return;
  std::vector<std::optional<LowerFilesystem>> many(
      12);  // more than there are loop devices at first
  for (auto& lower : many)
    lower.emplace(LowerKind::ext4, LowerFilesystem::Settings{.size_mib = 8});
  for (const auto& lower : many)
    CHECK(is_mounted(lower->path()));
}

TEST_CASE("a lower filesystem goes with the process that mounted it when that is killed") {
  if (!can_mount_lower(LowerKind::ext4)) return;
  const TempFolder folder("killed");
  const std::string mountpoint = folder.path() + "/mountpoint";
  REQUIRE(std::filesystem::create_directory(mountpoint));
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setenv("TALLYFS_TEST_DIR", folder.path().c_str(), 1);  // where what it can't remove stays
    try {
      const LowerFilesystem lower(LowerKind::ext4, {.size_mib = 8, .mountpoint = mountpoint});
      if (is_mounted(mountpoint)) ::kill(::getpid(), SIGKILL);
    } catch (...) {
    }
    ::_exit(1);
  }
  int status = 0;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  REQUIRE(WIFSIGNALED(status));
  for (int tries = 0; tries < 500 && is_mounted(mountpoint); ++tries)
    std::this_thread::sleep_for(10ms);
  CHECK_FALSE(is_mounted(mountpoint));
}
