#include "core/open_without_mounts.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <catch2/catch.hpp>

#include "tests/core/scanned.hpp"
#include "tests/skip.hpp"
#include "tests/temp_folder.hpp"

using tally::ScanErrorKind;
using tally::UniqueFd;
using tally::test::Scanned;
namespace stdfs = std::filesystem;

namespace {

/// A folder with `covered/file` of 1000 bytes, on which a tmpfs with a file of 5 bytes is mounted.
class CoveredFolder {
 public:
  CoveredFolder() {
    stdfs::create_directory(covered);
    std::ofstream(covered + "/file") << std::string(1000, 'c');
    is_mounted = mount_tmpfs(covered);
    if (is_mounted) std::ofstream(covered + "/other") << "12345";
  }
  CoveredFolder(const CoveredFolder&) = delete;
  CoveredFolder& operator=(const CoveredFolder&) = delete;
  ~CoveredFolder() {
    while (::umount2(covered.c_str(), MNT_DETACH) == 0) {
    }
  }

  static bool mount_tmpfs(const std::string& at) {
    return ::mount("tallyfs-test", at.c_str(), "tmpfs", 0, nullptr) == 0;
  }

  tally::test::TempFolder folder{"covered"};
  std::string covered = folder.path() + "/covered";
  bool is_mounted = false;
};

bool can_mount() {
  if (::geteuid() != 0) tally::test::skip("mounting needs root");
  return ::geteuid() == 0;
}

}  // namespace

TEST_CASE("without mounts what they cover is seen, also what is mounted later") {
  if (!can_mount()) return;
  const CoveredFolder test;
  REQUIRE(test.is_mounted);
  const UniqueFd root(::open(test.folder.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const auto alone = tally::open_without_mounts(root.get());
  REQUIRE(alone);
  CHECK(::faccessat(root.get(), "covered/other", F_OK, 0) == 0);
  CHECK(::faccessat(alone->get(), "covered/file", F_OK, 0) == 0);
  CHECK(::faccessat(alone->get(), "covered/other", F_OK, 0) == -1);
  stdfs::create_directory(test.folder.path() + "/later");
  REQUIRE(CoveredFolder::mount_tmpfs(test.folder.path() + "/later"));
  std::ofstream(test.folder.path() + "/later/new") << "new";
  CHECK(::faccessat(alone->get(), "later", F_OK, 0) == 0);
  CHECK(::faccessat(alone->get(), "later/new", F_OK, 0) == -1);
  CHECK(::umount2((test.folder.path() + "/later").c_str(), MNT_DETACH) == 0);
  // It is the same filesystem, which can be changed.
  CHECK(::mkdirat(alone->get(), "made", 0755) == 0);
  CHECK(stdfs::is_directory(test.folder.path() + "/made"));
}

TEST_CASE("a scan of one filesystem leaves out what is mounted below and reports it") {
  if (!can_mount()) return;
  const CoveredFolder test;
  REQUIRE(test.is_mounted);
  const Scanned whole(test.folder.path());
  CHECK(whole.at("").rbytes == tally::Bytes{5});
  const Scanned one(test.folder.path(), {.one_file_system = true});
  CHECK(one.at("").rbytes == tally::Bytes{0});
  CHECK(one.at("").rsubdirs == 0);
  CHECK_FALSE(one.at("").suspect);
  CHECK(one.summary.errors_of(ScanErrorKind::other_filesystem) == 1);
  CHECK(one.scanner.errors().report(ScanErrorKind::other_filesystem, 0).path == "covered");
}
