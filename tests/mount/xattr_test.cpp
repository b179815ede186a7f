#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

using namespace tally::test;

namespace {

/// A directory "dir" with one file of 12345 bytes.
void make_one_file(const MountFolders& folders) {
  REQUIRE(::mkdir(folders.source("dir").c_str(), 0755) == 0);
  write_file(folders.source("dir/file"), std::string(12345, 'x'));
  sync_filesystem(folders.source());
}

std::vector<std::string> listed(const std::string& path) {
  char names[4096];
  const ssize_t length = ::llistxattr(path.c_str(), names, sizeof names);
  REQUIRE(length >= 0);
  std::vector<std::string> found;
  for (const char* name = names; name < names + length; name += std::string_view(name).size() + 1) {
    found.emplace_back(name);
  }
  std::ranges::sort(found);
  return found;
}

int error_of(int returned) { return returned == -1 ? errno : 0; }

constexpr const char* tally_names[] = {"rbytes",   "rdisk",   "rfiles",  "rsubdirs",
                                       "rentries", "entries", "files",   "subdirs",
                                       "rctime",   "rgen",    "runique", "state"};
constexpr const char* ceph_names[] = {"rbytes",  "rfiles", "rsubdirs", "rentries",
                                      "entries", "files",  "subdirs",  "rctime"};

}  // namespace

TEST_CASE("a counter is decimal text without a trailing NUL") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_one_file(folders);
  const Mount mount(folders);
  CHECK(read_xattr(mount.at("dir"), "user.tally.rbytes").value() == "12345");
  CHECK(read_xattr(mount.at("dir"), "user.tally.rdisk").value() == "20480");
  CHECK(read_xattr(mount.at("dir"), "user.tally.state").value() == "exact");
  CHECK(read_xattr(mount.at("dir"), "ceph.dir.rbytes").value() == "12345");
  CHECK(read_xattr(mount.at("dir"), "ceph.dir.rsubdirs").value() == "0");
  const std::string rctime = read_xattr(mount.at("dir"), "user.tally.rctime").value();
  REQUIRE(rctime.size() > 10);
  CHECK(rctime[rctime.size() - 10] == '.');
}

TEST_CASE("the size of a counter can be asked for, and a short buffer is refused") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_one_file(folders);
  const Mount mount(folders);
  const std::string directory = mount.at("dir");
  char buffer[8] = "unused";
  CHECK(::getxattr(directory.c_str(), "user.tally.rbytes", nullptr, 0) == 5);
  CHECK(::getxattr(directory.c_str(), "user.tally.rbytes", buffer, 5) == 5);
  CHECK(error_of(static_cast<int>(::getxattr(directory.c_str(), "user.tally.rbytes", buffer, 4))) ==
        ERANGE);
}

TEST_CASE("names that are no counters are not there") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_one_file(folders);
  const Mount mount(folders);
  for (const char* name : {"user.tally.", "user.tally.x", "user.tally.rbytesx", "user.tally.rbyte",
                           "user.tally.orphan_bytes", "user.other"}) {
    INFO(name);
    const auto value = read_xattr(mount.at("dir"), name);
    REQUIRE_FALSE(value.has_value());
    CHECK(value.error().value == ENODATA);
  }
  INFO("files have no counters");
  const auto of_file = read_xattr(mount.at("dir/file"), "user.tally.rbytes");
  REQUIRE_FALSE(of_file.has_value());
  CHECK(of_file.error().value == ENODATA);
  CHECK(read_xattr(mount.at(), "user.tally.orphan_bytes").value() == "0");
}

TEST_CASE("a counter is read-only") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_one_file(folders);
  const Mount mount(folders);
  const std::string directory = mount.at("dir");
  for (const char* name : tally_names) {
    const std::string full = std::string("user.tally.") + name;
    INFO(full);
    CHECK(error_of(::setxattr(directory.c_str(), full.c_str(), "1", 1, 0)) == EPERM);
    CHECK(error_of(::removexattr(directory.c_str(), full.c_str())) == EPERM);
  }
  for (const char* name : ceph_names) {
    const std::string full = std::string("ceph.dir.") + name;
    INFO(full);
    CHECK(error_of(::setxattr(directory.c_str(), full.c_str(), "1", 1, 0)) == EPERM);
    CHECK(error_of(::removexattr(directory.c_str(), full.c_str())) == EPERM);
  }
  CHECK(listed(mount.lower("dir")).empty());
  check_counters(mount);
}

TEST_CASE("counters are not listed, so that copies don't carry them along") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_one_file(folders);
  const Mount mount(folders);
  CHECK(listed(mount.at("dir")).empty());
  REQUIRE(::setxattr(mount.at("dir").c_str(), "user.own", "1", 1, 0) == 0);
  CHECK(listed(mount.at("dir")) == std::vector<std::string>{"user.own"});
}

TEST_CASE("with list_xattr counters are listed after the real attributes of a directory") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_one_file(folders);
  const Mount mount(folders, {.options = "list_xattr"});
  REQUIRE(::setxattr(mount.at("dir").c_str(), "user.own", "1", 1, 0) == 0);
  const std::vector<std::string> names = listed(mount.at("dir"));
  const auto has = [&](const std::string& name) {
    return std::ranges::find(names, name) != names.end();
  };
  CHECK(has("user.own"));
  for (const char* name : tally_names) {
    INFO(name);
    CHECK(has(std::string("user.tally.") + name));
  }
  INFO("every listed name can be read");
  for (const std::string& name : names)
    CHECK(read_xattr(mount.at("dir"), name).has_value());
  CHECK(listed(mount.at("dir/file")).empty());
}

TEST_CASE("real attributes of directories pass through to the lower directory") {
  if (!can_mount()) return;
  const MountFolders folders;
  make_one_file(folders);
  const Mount mount(folders);
  const std::string directory = mount.at("dir");
  REQUIRE(::setxattr(directory.c_str(), "user.own", "value", 5, XATTR_CREATE) == 0);
  CHECK(read_xattr(mount.lower("dir"), "user.own").value() == "value");
  CHECK(read_xattr(directory, "user.own").value() == "value");
  REQUIRE(::removexattr(directory.c_str(), "user.own") == 0);
  CHECK_FALSE(read_xattr(mount.lower("dir"), "user.own").has_value());
  CHECK_FALSE(read_xattr(directory, "user.own").has_value());
}

TEST_CASE("getfattr shows the counters to people") {
  if (!can_mount() || !has_programs({"getfattr"})) return;
  const MountFolders folders;
  make_one_file(folders);
  const Mount mount(folders);
  const Finished finished =
      run({"getfattr", "--absolute-names", "-n", "user.tally.rbytes", mount.at("dir")});
  CHECK(finished.status == 0);
  CHECK(finished.output.find("user.tally.rbytes=\"12345\"") != std::string::npos);
}
