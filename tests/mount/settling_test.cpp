#include <sys/stat.h>

#include <chrono>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/sparse_file.hpp"

using namespace tally::test;
using namespace std::chrono_literals;

namespace {

int64_t blocks_of(const std::string& path) {
  struct stat st{};
  REQUIRE(::stat(path.c_str(), &st) == 0);
  return st.st_blocks;
}

}  // namespace

TEST_CASE("what is allocated for a file long after it was closed is counted") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  write_every_second_block(mount.at("sparse"), 2000);
  const int64_t closed = blocks_of(mount.lower("sparse"));
  // Written back after half a minute, by us or by the kernel. Nothing here looks the file up in the
  // mount, which would count it anew.
  const auto deadline = std::chrono::steady_clock::now() + 45s;
  while (blocks_of(mount.lower("sparse")) == closed && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(200ms);
  // A filesystem that allocates nothing late (tmpfs) is right at once.
  check_counters(mount);
}
