#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "core/dir_tree.hpp"
#include "tests/mount/mutation.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

bool writes(int fd, size_t length, off_t offset) {
  const std::string bytes(length, 'w');
  return ::pwrite(fd, bytes.data(), length, offset) == static_cast<ssize_t>(length);
}

}  // namespace

TEST_CASE("every write moves the totals of all ancestors before it returns") {
  if (!can_mount()) return;
  Mutation test;
  const UniqueFd fd = test.open("a/b/c/file", O_RDWR);
  test.change("grow", {"a/b/c"}, [&] { return writes(fd.get(), 1000, 50); });
  CHECK(counter(test.at("a"), "rbytes") == 1350);
  test.change("overwrite", {"a/b/c"}, [&] { return writes(fd.get(), 10, 0); });
  test.change("leave a hole", {"a/b/c"}, [&] { return writes(fd.get(), 10, 1'000'000); });
  test.change("fill the hole", {"a/b/c"}, [&] { return writes(fd.get(), 200'000, 10'000); });
  const UniqueFd append = test.open("a/b/c/file", O_WRONLY | O_APPEND);
  test.change("append", {"a/b/c"}, [&] { return writes(append.get(), 5000, 0); });
  const UniqueFd direct = test.open("x/y/direct", O_WRONLY | O_CREAT | O_DIRECT);
  test.change("write directly", {"x/y"}, [&] {
    alignas(4096) static char buffer[8192] = {};
    return ::pwrite(direct.get(), buffer, sizeof buffer, 0) == sizeof buffer;
  });
}

TEST_CASE("truncation up, down and at open moves the totals of all ancestors at once") {
  if (!can_mount()) return;
  Mutation test;
  const UniqueFd fd = test.open("a/b/c/file", O_RDWR);
  test.change("truncate up", {"a/b/c"},
              [&] { return ::truncate(test.at("a/b/c/file").c_str(), 1 << 20) == 0; });
  test.change("write into it", {"a/b/c"}, [&] { return writes(fd.get(), 50'000, 100'000); });
  test.change("ftruncate down", {"a/b/c"}, [&] { return ::ftruncate(fd.get(), 110'000) == 0; });
  test.change("ftruncate up", {"a/b/c"}, [&] { return ::ftruncate(fd.get(), 210'000) == 0; });
  test.change("truncate down", {"a/b/c"},
              [&] { return ::truncate(test.at("a/b/c/file").c_str(), 7) == 0; });
  test.change("open with O_TRUNC", {"x/y"},
              [&] { return static_cast<bool>(test.open("x/y/other", O_WRONLY | O_TRUNC)); });
  CHECK(counter(test.at("x"), "rbytes") == 300);
  test.change("create with O_TRUNC over a file", {"a/b/c"}, [&] {
    return static_cast<bool>(test.open("a/b/c/file", O_RDWR | O_CREAT | O_TRUNC));
  });
  CHECK(counter(test.at("a"), "rbytes") == 300);
}

TEST_CASE("allocation, holes and copies moves the totals of all ancestors at once") {
  if (!can_mount()) return;
  Mutation test;
  const UniqueFd fd = test.open("a/b/c/file", O_RDWR);
  const auto allocates = [&](int mode, off_t offset, off_t length) {
    return ::fallocate(fd.get(), mode, offset, length) == 0;
  };
  test.change("fallocate", {"a/b/c"}, [&] { return allocates(0, 0, 500'000); });
  test.change("keep size", {"a/b/c"},
              [&] { return allocates(FALLOC_FL_KEEP_SIZE, 500'000, 500'000); });
  test.change("punch a hole", {"a/b/c"}, [&] {
    return allocates(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 40'960, 81'920);
  });
  test.change("zero a range", {"a/b/c"},
              [&] { return allocates(FALLOC_FL_ZERO_RANGE, 450'000, 100'000); });
  const UniqueFd target = test.open("x/y/other", O_RDWR);
  test.change("copy_file_range", {"x/y"}, [&] {
    return ::copy_file_range(fd.get(), nullptr, target.get(), nullptr, 100'000, 0) == 100'000;
  });
  CHECK(counter(test.at("x"), "rbytes") == 100'300);
}

TEST_CASE("growth of a file with two names moves the totals above both") {
  if (!can_mount()) return;
  Mutation test;
  const UniqueFd fd = test.open("a/b/c/twin", O_RDWR);
  test.change("grow", {"a/b/c", "x/y"}, [&] { return writes(fd.get(), 10'000, 0); });
  CHECK(counter(test.at("a"), "rbytes") == 10'100);
  CHECK(counter(test.at("x"), "rbytes") == 10'200);
  CHECK(counter(test.at(""), "rbytes") == 10'300);
  test.change("shrink by the other name", {"a/b/c", "x/y"},
              [&] { return ::truncate(test.at("x/y/twin").c_str(), 50) == 0; });
}

TEST_CASE("dirty pages of a shared mapping are counted once they are written back") {
  if (!can_mount()) return;
  Mutation test;
  const UniqueFd fd = test.open("a/b/c/mapped", O_RDWR | O_CREAT);
  test.change("make it sparse", {"a/b/c"}, [&] { return ::ftruncate(fd.get(), 1 << 20) == 0; });
  void* address = ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  REQUIRE(address != MAP_FAILED);
  test.change("write and msync", {"a/b/c"}, [&] {
    static_cast<char*>(address)[500'000] = 'm';
    return ::msync(address, 1 << 20, MS_SYNC) == 0;
  });
  test.change("write, unmap and fsync", {"a/b/c"}, [&] {
    static_cast<char*>(address)[600'000] = 'm';
    return ::munmap(address, 1 << 20) == 0 && ::fsync(fd.get()) == 0;
  });
}

TEST_CASE("changes of an inode's attributes move rctime in all ancestors") {
  if (!can_mount()) return;
  Mutation test;
  const std::string file = test.at("a/b/c/file");
  const auto moves_rctime = [&](const char* what, const std::function<bool()>& action) {
    INFO(what);
    const auto before = rctime_ns(test.at(""));
    ::usleep(20'000);
    test.change(what, {"a/b/c"}, action);
    CHECK(rctime_ns(test.at("")) > before);
    CHECK(rctime_ns(test.at("")) == rctime_ns(test.at("a/b/c")));
  };
  moves_rctime("chmod", [&] { return ::chmod(file.c_str(), 0600) == 0; });
  moves_rctime("chown", [&] { return ::chown(file.c_str(), 1, 1) == 0; });
  moves_rctime("utimes", [&] {
    const struct timespec times[2] = {{1, 1}, {1, 1}};
    return ::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0;
  });
  moves_rctime("setxattr", [&] { return ::setxattr(file.c_str(), "user.x", "value", 5, 0) == 0; });
  moves_rctime("a large xattr", [&] {
    const std::string value(3000, 'v');
    return ::setxattr(file.c_str(), "user.large", value.data(), value.size(), 0) == 0;
  });
  moves_rctime("removexattr", [&] { return ::removexattr(file.c_str(), "user.large") == 0; });
  moves_rctime("chmod of a directory",
               [&] { return ::chmod(test.at("a/b/c/empty").c_str(), 0700) == 0; });
}

TEST_CASE("rctime never goes back and never runs ahead of the clock") {
  if (!can_mount()) return;
  Mutation test;
  test.change("create", {"a/b/c"},
              [&] { return static_cast<bool>(test.open("a/b/c/new", O_CREAT | O_WRONLY)); });
  const auto newest = rctime_ns(test.at(""));
  test.change("delete it", {"a/b/c"}, [&] { return ::unlink(test.at("a/b/c/new").c_str()) == 0; });
  CHECK(rctime_ns(test.at("")) >= newest);
  CHECK(rctime_ns(test.at("")) <= tally::now_ns());
}
