#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

using namespace tally;
using namespace tally::test;

TEST_CASE("whether a write appends is as fcntl last said, whatever the file was opened with") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDWR | O_CREAT | O_APPEND, 0644));
    const int flags = ::fcntl(fd.get(), F_GETFL);
    recorder.call("appends", ::write(fd.get(), "0123456789", 10));
    recorder.call("appends", ::pwrite(fd.get(), "abc", 3, 0));
    recorder.call("fcntl", ::fcntl(fd.get(), F_SETFL, flags & ~O_APPEND));
    recorder.call("overwrites", ::pwrite(fd.get(), "XY", 2, 4));
    recorder.content("file");
    recorder.call("fcntl", ::fcntl(fd.get(), F_SETFL, flags));
    recorder.call("appends", ::pwrite(fd.get(), "end", 3, 0));
    recorder.content("file");
    recorder.call("position", ::lseek(fd.get(), 0, SEEK_CUR));
  });
}

TEST_CASE("pages of a mapping go to their own offset through a handle that appends") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  const std::string content(10'000, 'x');
  write_file(mount.at("file"), content);
  const UniqueFd fd(::open(mount.at("file").c_str(), O_RDWR | O_APPEND | O_CLOEXEC));
  REQUIRE(fd);
  void* const mapped = ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  REQUIRE(mapped != MAP_FAILED);
  std::memcpy(static_cast<char*>(mapped) + 5000, "mapped", 6);
  CHECK(::msync(mapped, 8192, MS_SYNC) == 0);
  REQUIRE(::munmap(mapped, 8192) == 0);
  CHECK(read_file(mount.lower("file")) ==
        content.substr(0, 5000) + "mapped" + content.substr(5006));
  CHECK(counter(mount.at(), "rbytes") == 10'000);
}
