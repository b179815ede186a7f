#include "fs/attributes.hpp"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <set>
#include <string>

#include <catch2/catch.hpp>

#include "core/unique_fd.hpp"
#include "tests/temp_folder.hpp"

namespace tally::fs {

namespace {

constexpr uint32_t no_device = 0;

bool same_time(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

void check_same_as_stat(int path_fd) {
  struct stat expected;
  REQUIRE(::fstatat(path_fd, "", &expected, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0);
  const auto stx = statx_fd(path_fd);
  REQUIRE(stx.has_value());
  const struct stat attributes =
      to_stat(*stx, pack_dev(major(expected.st_dev), minor(expected.st_dev)));
  CHECK(attributes.st_ino == expected.st_ino);
  CHECK(attributes.st_mode == expected.st_mode);
  CHECK(attributes.st_nlink == expected.st_nlink);
  CHECK(attributes.st_uid == expected.st_uid);
  CHECK(attributes.st_gid == expected.st_gid);
  CHECK(attributes.st_rdev == expected.st_rdev);
  CHECK(attributes.st_size == expected.st_size);
  CHECK(attributes.st_blksize == expected.st_blksize);
  CHECK(attributes.st_blocks == expected.st_blocks);
  CHECK(same_time(attributes.st_atim, expected.st_atim));
  CHECK(same_time(attributes.st_mtim, expected.st_mtim));
  CHECK(same_time(attributes.st_ctim, expected.st_ctim));
}

}  // namespace

TEST_CASE("attributes are those of stat for files, directories, links and devices") {
  const test::TempFolder folder;
  const std::string file = folder.path() + "/file";
  const std::string link = folder.path() + "/link";
  REQUIRE(UniqueFd(::open(file.c_str(), O_CREAT | O_WRONLY, 0640)));
  REQUIRE(::truncate(file.c_str(), 12345) == 0);
  REQUIRE(::symlink("nowhere at all", link.c_str()) == 0);
  for (const std::string& path : {file, link, folder.path(), std::string("/dev/null")}) {
    INFO(path);
    const UniqueFd fd(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    REQUIRE(fd);
    check_same_as_stat(fd.get());
  }
}

TEST_CASE("a descriptor that is not open has no attributes") {
  CHECK(statx_fd(-1) == failure(EBADF));
}

TEST_CASE("inode numbers of the root's device stay, others are told apart by device") {
  CHECK(visible_inode_number({.ino = 77, .dev = 5}, 5) == 77);
  std::set<uint64_t> seen;
  for (uint32_t device = 1; device <= 100; ++device) {
    for (uint64_t ino = 1; ino <= 100; ++ino)
      seen.insert(visible_inode_number({.ino = ino, .dev = device}, no_device));
  }
  CHECK(seen.size() == 10'000);
}

}  // namespace tally::fs
