// As large as it gets: names, depth, sizes, links.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/lower_filesystem.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

/// How many of something: what the environment says, to measure more than a test run has time for.
int count_or(const char* variable, int otherwise) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? otherwise : std::atoi(text);
}

std::string name_of_file(int number) { return "f" + std::to_string(number); }

/// Directories below one another, each named "d"; descriptors on the way, for paths this long can't
/// be given to any call.
UniqueFd descend(const std::string& top, int depth, bool making) {
  UniqueFd at(::open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int level = 0; level < depth && at; ++level) {
    if (making && ::mkdirat(at.get(), "d", 0755) != 0) return {};
    at = UniqueFd(::openat(at.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  return at;
}

int64_t counter_of(const UniqueFd& directory, const std::string& name) {
  return counter("/proc/self/fd/" + std::to_string(directory.get()) + "/.", name);
}

}  // namespace

TEST_CASE("a directory with 100000 entries is filled and listed and moved and emptied") {
  if (!can_mount()) return;
  const int count = count_or("TALLYFS_TEST_ENTRIES", 100'000);
  const MountFolders folders("/dev/shm");
  const Mount mount(folders, {.life_max = std::chrono::seconds(850)});
  REQUIRE(::mkdir(mount.at("wide").c_str(), 0755) == 0);
  const UniqueFd wide(::open(mount.at("wide").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  int made = 0;
  for (int i = 0; i < count; ++i) {
    const UniqueFd file(
        ::openat(wide.get(), name_of_file(i).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    made += ::write(file.get(), "xyz", 3) == 3 ? 1 : 0;
  }
  CHECK(made == count);
  CHECK(counter(mount.at(), "rbytes") == 3 * int64_t{count});
  CHECK(counter(mount.at("wide"), "files") == count);
  const std::filesystem::directory_iterator listing(mount.at("wide"));
  CHECK(std::distance(begin(listing), end(listing)) == count);
  REQUIRE(::mkdir(mount.at("elsewhere").c_str(), 0755) == 0);
  REQUIRE(::rename(mount.at("wide").c_str(), mount.at("elsewhere/wide").c_str()) == 0);
  check_counters(mount);
  int removed = 0;
  for (int i = 0; i < count; ++i)
    removed += ::unlinkat(wide.get(), name_of_file(i).c_str(), 0) == 0 ? 1 : 0;
  CHECK(removed == count);
  check_counters(mount);
  CHECK(counter(mount.at(), "rbytes") == 0);
}

TEST_CASE("directories ten thousand deep are made and changed and moved and removed") {
  if (!can_mount()) return;
  constexpr int depth = 10'000;
  const MountFolders folders("/dev/shm");
  const Mount mount(folders, {.life_max = std::chrono::seconds(850)});
  UniqueFd bottom = descend(mount.at(), depth, true);
  REQUIRE(bottom);
  CHECK(counter(mount.at(), "rsubdirs") == depth);
  const UniqueFd file(::openat(bottom.get(), "file", O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  REQUIRE(::write(file.get(), "at the bottom", 13) == 13);
  CHECK(counter(mount.at(), "rbytes") == 13);
  REQUIRE(::mkdir(mount.at("side").c_str(), 0755) == 0);
  REQUIRE(::rename(mount.at("d").c_str(), mount.at("side/d").c_str()) == 0);
  REQUIRE(::ftruncate(file.get(), 5) == 0);
  CHECK(counter(mount.at("side"), "rbytes") == 5);
  CHECK(counter(mount.at("side"), "rsubdirs") == depth);
  CHECK(counter(mount.at(), "rsubdirs") == depth + 1);
  // Upwards again, a directory at a time: each knows what is below it.
  REQUIRE(::unlinkat(bottom.get(), "file", 0) == 0);
  int wrong = 0;
  for (int level = 0; level < depth; ++level) {
    if (level % 500 == 0) wrong += counter_of(bottom, "rsubdirs") == 0 ? 0 : 1;
    bottom = UniqueFd(::openat(bottom.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(::unlinkat(bottom.get(), "d", AT_REMOVEDIR) == 0);
  }
  CHECK(wrong == 0);
  check_counters(mount);
  CHECK(counter(mount.at(), "rentries") == 1);
}

TEST_CASE("paths of 4095 bytes with names of 255 bytes that are not UTF-8 are counted exactly") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  // Relative to the mount: 15 directories of 255 bytes and a slash, and a name of 255.
  std::string path;
  for (int level = 0; level < 15; ++level) {
    path += std::string(255, static_cast<char>(0x80 + level));
    const UniqueFd root(::open(mount.at().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(root);
    REQUIRE(::mkdirat(root.get(), path.c_str(), 0755) == 0);
    path += '/';
  }
  path += std::string(255, '\xff');
  REQUIRE(path.size() == 4095);
  const UniqueFd root(::open(mount.at().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(root);
  const UniqueFd file(::openat(root.get(), path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  REQUIRE(file);
  REQUIRE(::write(file.get(), "deep", 4) == 4);
  CHECK(::openat(root.get(), (path + "n").c_str(), O_CREAT | O_WRONLY, 0644) == -1);
  CHECK(errno == ENAMETOOLONG);
  check_counters(mount);
  CHECK(counter(mount.at(), "rbytes") == 4);
}

TEST_CASE("a file as large as it gets is counted, and what would not fit is refused natively") {
  if (!can_mount()) return;
  const MountFolders folders("/dev/shm");  // where 2^63 - 1 bytes are not too many
  const Mount mount(folders);
  constexpr off_t most = std::numeric_limits<off_t>::max();
  REQUIRE(::mkdir(mount.at("d").c_str(), 0755) == 0);
  const UniqueFd file(::open(mount.at("d/large").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  REQUIRE(::ftruncate(file.get(), most) == 0);
  CHECK(counter(mount.at(), "rbytes") == most);
  CHECK(::pwrite(file.get(), "x", 1, most) == -1);
  const int error = errno;
  const UniqueFd native(
      ::open(folders.native("large").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  CHECK(::pwrite(native.get(), "x", 1, most) == -1);
  CHECK(error == errno);
  check_counters(mount);
  REQUIRE(::ftruncate(file.get(), 1) == 0);
  CHECK(counter(mount.at(), "rbytes") == 1);
  check_counters(mount);
}

TEST_CASE("a total that does not fit is suspect for as long as it does not, and right afterwards") {
  if (!can_mount()) return;
  const MountFolders folders("/dev/shm");
  const Mount mount(folders);
  constexpr off_t most = std::numeric_limits<off_t>::max();
  const auto state = [&](const std::string& path) {
    return read_xattr(mount.at(path), "user.tally.state").value();
  };
  for (const char* name : {"a", "b"}) {
    REQUIRE(::mkdir(mount.at(name).c_str(), 0755) == 0);
    write_file(mount.at(name) + std::string("/large"), "");
    REQUIRE(::truncate((mount.at(name) + "/large").c_str(), most) == 0);
  }
  // The scan may just be ending.
  while (state("").starts_with("scanning"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(state("") == "suspect");
  CHECK(state("a") == "exact");
  CHECK(counter(mount.at("b"), "rbytes") == most);
  REQUIRE(::truncate(mount.at("a/large").c_str(), 5) == 0);
  REQUIRE(::truncate(mount.at("b/large").c_str(), 6) == 0);
  check_healed(mount, std::chrono::seconds(5));
  CHECK(counter(mount.at(), "rbytes") == 11);
}

TEST_CASE("a file has 65000 names and no more on ext4 and each directory counts it once") {
  if (!can_mount() || !can_mount_lower(LowerKind::ext4)) return;
  constexpr int names_max = 65'000;  // EXT4_LINK_MAX
  constexpr int directories = 65;
  const LowerFilesystem lower(LowerKind::ext4);
  const MountFolders folders(lower.path());
  const Mount mount(folders, {.life_max = std::chrono::seconds(850)});
  const auto name = [&](int i) {
    return mount.at("top/d" + std::to_string(i % directories) + "/" + name_of_file(i));
  };
  REQUIRE(::mkdir(mount.at("top").c_str(), 0755) == 0);
  for (int d = 0; d < directories; ++d) {
    REQUIRE(::mkdir(mount.at("top/d" + std::to_string(d)).c_str(), 0755) == 0);
  }
  write_file(name(0), "one");
  int names = 1;
  while (names <= names_max && ::link(name(names - 1).c_str(), name(names).c_str()) == 0)
    ++names;
  CHECK(errno == EMLINK);
  CHECK(names == names_max);
  CHECK(counter(mount.at(), "rbytes") == 3);
  CHECK(counter(mount.at("top/d7"), "files") == names_max / directories);
  check_counters(mount);
  INFO("it grows, its directories move, and its names go");
  write_file(name(12'345), "a good deal longer than before");
  CHECK(counter(mount.at("top/d64"), "rbytes") == 30);
  REQUIRE(::rename(mount.at("top/d64").c_str(), mount.at("moved").c_str()) == 0);
  CHECK(counter(mount.at("moved"), "rbytes") == 30);
  CHECK(counter(mount.at(), "rbytes") == 30);
  REQUIRE(::link(name(0).c_str(), mount.at("one more").c_str()) == -1);
  REQUIRE(::unlink(name(1).c_str()) == 0);
  REQUIRE(::link(name(0).c_str(), mount.at("one more").c_str()) == 0);
  check_counters(mount);
  std::filesystem::remove_all(mount.at("top"));
  CHECK(counter(mount.at(), "rbytes") == 30);
  check_counters(mount);
}

TEST_CASE("reads by more threads than there are buffers all get what is in the file") {
  if (!can_mount()) return;
  const MountFolders folders;
  std::string content;
  for (int i = 0; content.size() < (1U << 20); ++i)
    content += std::to_string(i) + " ";
  write_file(folders.source("file"), content);
  const Mount mount(folders, {.options = "buffers=1,buffer_size=4096"});
  std::atomic<int> right = 0;
  constexpr int readers_count = 8;
  std::vector<std::thread> readers;
  readers.reserve(readers_count);
  for (int reader = 0; reader < readers_count; ++reader) {
    readers.emplace_back([&, reader] {
      // Each opens it with O_DIRECT, so that the kernel's cache answers none of them.
      const UniqueFd fd(::open(mount.at("file").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
      alignas(4096) char buffer[16 << 10];
      bool same = fd.get() >= 0;
      for (size_t at = static_cast<size_t>(reader) * 4096; at + sizeof buffer < content.size();
           at += sizeof buffer) {
        same = same && ::pread(fd.get(), buffer, sizeof buffer, static_cast<off_t>(at)) ==
                           static_cast<ssize_t>(sizeof buffer);
        same = same && content.compare(at, sizeof buffer, buffer, sizeof buffer) == 0;
      }
      right += same ? 1 : 0;
    });
  }
  for (std::thread& reader : readers)
    reader.join();
  CHECK(right == readers_count);
}
