// The parity suite: one case for each system call.

#include "tests/mount/parity_suite.hpp"

#include <cstdio>
#include <cstdlib>

#include <catch2/catch.hpp>

using namespace tally::test;

TEST_CASE("every system call ends as natively on every target with every credential") {
  if (!can_mount()) return;
  const char* const only = std::getenv("PARITY");
  const MountFolders folders;
  const Mount mount(folders, {.life_max = std::chrono::seconds(800)});
  for (const SystemCall& call : suite_calls()) {
    if (only != nullptr && call.name != only) continue;
    DYNAMIC_SECTION(call.name) { check_call(folders, mount, call); }
  }
}

TEST_CASE("suite size") {
  size_t all = 0;
  for (const SystemCall& call : suite_calls()) {
    std::printf("%s %zu %zu\n", call.name.c_str(), call.variants.size(), cells_of(call));
    all += cells_of(call);
  }
  std::printf("total %zu targets %zu\n", all, suite_targets().size());
  CHECK(all > 0);
}
