// The parity suite: every system call on every target with every credential, and its table.

#include "tests/mount/parity_suite.hpp"

#include <cstdlib>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/parity.hpp"
#include "tests/mount/parity_table.hpp"

using namespace tally::test;

namespace {

/// PARITY=rename: only that call.
void check_calls(const std::vector<SystemCall>& calls) {
  if (!can_mount()) return;
  const char* const only = std::getenv("PARITY");
  const MountFolders folders;
  const Mount mount(folders, {.life_max = std::chrono::seconds(850)});
  for (const SystemCall& call : calls) {
    if (only == nullptr || call.name == only) check_call(folders, mount, call);
  }
  CHECK(wrong_counters(mount, Compare::exact_parts) == std::vector<std::string>{});
}

const std::string table_path = std::string(SOURCE_FOLDER) + "/tests/mount/PARITY.md";

}  // namespace

TEST_CASE("parity: chmod and chown and utimensat on every target with every credential") {
  check_calls(attribute_calls());
}

TEST_CASE("parity: names come and go on every target with every credential") {
  check_calls(name_calls());
}

TEST_CASE("parity: rename with every flag on every target with every credential") {
  check_calls(rename_calls());
}

TEST_CASE("parity: open and what is like it on every target with every credential") {
  check_calls(open_calls());
}

TEST_CASE("parity: reads and writes and allocation on every target with every credential") {
  check_calls(data_calls());
}

TEST_CASE("parity: stat and access and readlink on every target with every credential") {
  check_calls(query_calls());
}

TEST_CASE("parity: extended attributes on every target with every credential") {
  check_calls(xattr_calls());
}

TEST_CASE("PARITY.md and the README say what the parity suite compares") {
  CHECK(read_file(table_path) == parity_table());
  const std::string readme = read_file(std::string(SOURCE_FOLDER) + "/README.md");
  CHECK(readme.find(parity_count() + " combinations](tests/mount/PARITY.md)") != std::string::npos);
}

TEST_CASE("PARITY.md is written anew", "[.]") {
  write_file(table_path, parity_table());
  CHECK(read_file(table_path) == parity_table());
}
