#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include <catch2/catch.hpp>

#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

using namespace tally::test;

namespace {

Finished run_tallyfs(const std::vector<std::string>& arguments) {
  return run(tallyfs_command(arguments), "", std::chrono::seconds(30));
}

/// One line, that is not empty and has its newline.
bool is_one_line(const std::string& text) {
  return text.size() > 1 && std::ranges::count(text, '\n') == 1 && text.back() == '\n';
}

}  // namespace

TEST_CASE("a wrong command line is one clear line and status 2") {
  const MountFolders folders;
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"--no-such-option", folders.source(), folders.mountpoint()},
        {"-f", "-o", "no_such_option", folders.source(), folders.mountpoint()},
        {"-f", "-o", "io=sideways", folders.source(), folders.mountpoint()},
        {"-f", "-o", "max_dirs=many", folders.source(), folders.mountpoint()},
        {"-f", "-o", "dirsize=", folders.source(), folders.mountpoint()},
        {"-f", folders.source(), folders.mountpoint(), "one too many"},
        {}}) {
    const Finished finished = run_tallyfs(arguments);
    INFO("output: " << finished.output);
    CHECK(finished.status == 2);
    CHECK(is_one_line(finished.output));
    CHECK_FALSE(is_fuse_mount(folders.mountpoint()));
  }
}

TEST_CASE("an unknown option is named in the message") {
  const MountFolders folders;
  const Finished finished =
      run_tallyfs({"-f", "-o", "no_such_option", folders.source(), folders.mountpoint()});
  CHECK(finished.output.find("no_such_option") != std::string::npos);
}

TEST_CASE("a source or mount point that cannot serve is one clear line and status 1") {
  const MountFolders folders;
  write_file(folders.source("file"), "content");
  REQUIRE(::mkdir(folders.source("inside").c_str(), 0755) == 0);
  const std::string missing = folders.folder() + "/missing";
  for (const auto& [source, mountpoint] :
       {std::pair(missing, folders.mountpoint()),
        std::pair(folders.source("file"), folders.mountpoint()),
        std::pair(folders.source(), missing), std::pair(folders.source(), folders.source("file")),
        std::pair(folders.source(), folders.source("inside"))}) {
    for (const bool in_foreground : {true, false}) {
      std::vector<std::string> arguments{source, mountpoint};
      if (in_foreground) arguments.insert(arguments.begin(), "-f");
      const Finished finished = run_tallyfs(arguments);
      INFO("source " << source << ", mount point " << mountpoint
                     << ", output: " << finished.output);
      CHECK(finished.status == 1);
      CHECK(is_one_line(finished.output));
      CHECK_FALSE(is_fuse_mount(mountpoint));
    }
  }
}

TEST_CASE("the options -V and -h print the version and the help, each with status 0") {
  const Finished version = run_tallyfs({"-V"});
  CHECK(version.status == 0);
  CHECK(version.output.find("tallyfs") != std::string::npos);
  CHECK(version.output.find_first_of("0123456789") != std::string::npos);
  const Finished help = run_tallyfs({"-h"});
  CHECK(help.status == 0);
  for (const char* word : {"SOURCE", "MOUNTPOINT", "io=", "dirsize=", "list_xattr", "max_dirs",
                           "scan_threads", "attr_timeout", "-f", "-d", "-V"}) {
    INFO(word);
    CHECK(help.output.find(word) != std::string::npos);
  }
}

TEST_CASE("the option --show-limits prints the sums behind the capacities without mounting") {
  const MountFolders folders;
  const Finished finished = run_tallyfs({"--show-limits", folders.source()});
  INFO(finished.output);
  CHECK(finished.status == 0);
  CHECK(std::ranges::count(finished.output, '\n') > 3);
  CHECK_FALSE(is_fuse_mount(folders.source()));
}
