#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/mount/child_process.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

// `tally check`, as a user runs it.

using namespace tally::test;

namespace {

Finished check(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{TALLY_BINARY, "check"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run(command);
}

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("tally check of a mount where all is right says so with status 0") {
  if (!can_mount()) return;
  const MountFolders folders;
  REQUIRE(::mkdir(folders.source("folder").c_str(), 0755) == 0);
  write_file(folders.source("folder/file"), "content");
  const Mount mount(folders);
  const Finished outcome = check({mount.at()});
  CHECK(outcome.status == 0);
  CHECK(outcome.output.starts_with(mount.at() + "\n"));
  CHECK(has_line(outcome.output, "directories  2"));
  CHECK(has_line(outcome.output, "differences  0"));
  CHECK(has_line(outcome.output, "unreadable   0"));
  CHECK(has_line(outcome.output, "state        exact"));
}

TEST_CASE("tally check finds what was changed behind the mount and has it corrected: status 1") {
  if (!can_mount()) return;
  const MountFolders folders;
  REQUIRE(::mkdir(folders.source("folder").c_str(), 0755) == 0);
  const Mount mount(folders, {.options = "watch=off,audit_iops=0"});
  write_file(mount.lower("folder/file"), "content");
  const Finished first = check({mount.at()});
  CHECK(first.status == 1);
  CHECK(has_line(first.output, "differences  1  (corrected)"));
  CHECK(counter(mount.at(), "rbytes") == 7);
  CHECK(check({mount.at()}).status == 0);
}

TEST_CASE("of several tally checks at once none hides from all what was found") {
  if (!can_mount()) return;
  const MountFolders folders;
  for (int i = 0; i < 300; ++i)
    REQUIRE(::mkdir(folders.source("d" + std::to_string(i)).c_str(), 0755) == 0);
  const Mount mount(folders, {.options = "audit_iops=0"});
  for (int i = 0; i < 40; ++i)
    write_file(mount.lower("d" + std::to_string(i) + "/behind"), "x");
  ChildProcess first({TALLY_BINARY, "check", mount.at()});
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  const Finished second = run({TALLY_BINARY, "check", mount.at()});
  const auto first_status = first.wait(std::chrono::seconds(60));
  CHECK((first_status == 1 || second.status == 1));
}

TEST_CASE("tally check takes any path in a mount and prints JSON for programs") {
  if (!can_mount()) return;
  const MountFolders folders;
  REQUIRE(::mkdir(folders.source("folder").c_str(), 0755) == 0);
  const Mount mount(folders);
  write_file(mount.at("folder/file"), "content");
  for (const std::string& path : {mount.at("folder"), mount.at("folder/file")}) {
    INFO(path);
    const Finished outcome = check({"--json", path});
    CHECK(outcome.status == 0);
    for (const std::string& part :
         {"\"path\": \"" + mount.at() + "\"", std::string("\"directories\": 2"),
          std::string("\"differences\": 0"), std::string("\"failed\": 0"),
          std::string("\"state\": \"exact\"")})
      CHECK(outcome.output.find(part) != std::string::npos);
  }
}

TEST_CASE("tally check of what can't be checked is one line and status 1 and 2 for wrong usage") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Finished elsewhere = check({folders.source()});
  CHECK(elsewhere.status == 1);
  CHECK(elsewhere.output == "tally: " + folders.source() + " is not in a TallyFS mount\n");
  const Finished missing = check({folders.source("missing")});
  CHECK(missing.status == 1);
  CHECK(missing.output ==
        "tally: cannot check " + folders.source("missing") + ": No such file or directory\n");
  CHECK(check({"--no-such-option"}).status == 2);
}
