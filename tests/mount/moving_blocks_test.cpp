// Blocks that move by themselves after the last write: delayed allocation (ext4), preallocation
// (XFS), compression (btrfs). What README promises: `rdisk` is what du prints from `settle` seconds
// after the last write on, and follows by that much when XFS takes preallocated blocks back later.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/lower_filesystem.hpp"
#include "tests/mount/mount.hpp"

using namespace tally::test;
using namespace std::chrono_literals;
using tally::UniqueFd;

namespace {

constexpr auto settle = 1s;  // as of the mounts' option
// For the writing back, and for a machine that is busy with other tests.
constexpr auto slack = 15s;

struct Lower {
  LowerKind kind;
  std::string options;
};

/// "on btrfs with compress=zstd" for INFO.
std::string text_of(const Lower& lower) {
  return std::string("on ") + name_of(lower.kind) +
         (lower.options.empty() ? "" : " with " + lower.options);
}

/// Where rdisk is not what `du` prints of a directory, a line each.
std::vector<std::string> differences(const Mount& mount, const std::string& source) {
  const Finished finished = run({"du", "-B1", source});
  REQUIRE(finished.status == 0);
  std::vector<std::string> result;
  std::istringstream lines(finished.output);
  int64_t bytes = 0;
  for (std::string path; lines >> bytes >> path;) {
    const std::string name = path.substr(std::min(path.size(), source.size() + 1));
    const int64_t counted = counter(mount.at(name), "rdisk");
    if (counted != bytes)
      result.push_back('"' + name + "\": rdisk is " + std::to_string(counted) + ", du prints " +
                       std::to_string(bytes));
  }
  return result;
}

void check_no_differences(const Mount& mount, const std::string& source) {
  const auto deadline = std::chrono::steady_clock::now() + slack;
  auto found = differences(mount, source);
  while (!found.empty() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(100ms);
    found = differences(mount, source);
  }
  CHECK(found == std::vector<std::string>());
}

/// Checks that in due time rdisk is what du prints, and that nothing is left that moves blocks when
/// it is written out.
void check_settled(const Mount& mount, const std::string& source) {
  std::this_thread::sleep_for(2 * settle);
  check_no_differences(mount, source);
  sync_filesystem(source);
  check_no_differences(mount, source);
}

UniqueFd open_file(const std::string& path, int flags) {
  UniqueFd fd(::open(path.c_str(), flags | O_CREAT | O_CLOEXEC, 0644));
  REQUIRE(fd);
  return fd;
}

void write_text(int fd, const std::string& text) {
  REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

void append(int fd, int times) {
  const std::string text(7000, 'a');
  for (int i = 0; i < times; ++i)
    write_text(fd, text);
}

void write_block(int fd, off_t block) {
  const std::string text(4096, 'b');
  REQUIRE(::pwrite(fd, text.data(), text.size(), block * 4096) == 4096);
}

void write_buffered(const std::string& directory) {
  std::mt19937 random(1);
  const UniqueFd text = open_file(directory + "/text", O_WRONLY);
  const UniqueFd noise = open_file(directory + "/noise", O_WRONLY);
  for (int i = 0; i < 100; ++i) {
    write_text(text.get(), std::string(9000, 't'));
    std::string bytes(9000, '\0');
    for (char& byte : bytes)
      byte = static_cast<char>(random());
    write_text(noise.get(), bytes);
  }
}

void write_allocated(const std::string& directory) {
  const UniqueFd whole = open_file(directory + "/whole", O_WRONLY);
  REQUIRE(::fallocate(whole.get(), 0, 0, 1 << 20) == 0);
  write_block(whole.get(), 3);
  const UniqueFd ahead = open_file(directory + "/ahead", O_WRONLY);
  REQUIRE(::fallocate(ahead.get(), FALLOC_FL_KEEP_SIZE, 0, 1 << 20) == 0);
  write_block(ahead.get(), 0);
  const UniqueFd punched = open_file(directory + "/punched", O_WRONLY);
  for (off_t block = 0; block < 64; ++block)
    write_block(punched.get(), block);
  REQUIRE(::fallocate(punched.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 16 << 12,
                      8 << 12) == 0);
}

void write_sparse(const std::string& directory) {
  const UniqueFd upwards = open_file(directory + "/upwards", O_WRONLY);
  for (off_t block = 0; block < 1500; ++block)
    write_block(upwards.get(), 2 * block);
  const UniqueFd rewritten = open_file(directory + "/rewritten", O_WRONLY);
  for (off_t block = 0; block < 300; ++block)
    write_block(rewritten.get(), 7 * block % 300);
  REQUIRE(::fsync(rewritten.get()) == 0);
  for (off_t block = 0; block < 300; block += 3)
    write_block(rewritten.get(), block);
}

void write_appended(const std::string& directory) {
  for (int i = 0; i < 5; ++i) {
    const UniqueFd again = open_file(directory + "/again", O_WRONLY | O_APPEND);
    append(again.get(), 100);
  }
  const UniqueFd once = open_file(directory + "/once", O_WRONLY | O_APPEND);
  append(once.get(), 300);
}

void write_many(const std::string& directory) {
  for (int i = 0; i < 300; ++i) {
    const UniqueFd fd = open_file(directory + "/" + std::to_string(i), O_WRONLY);
    write_text(fd.get(), std::string(static_cast<std::size_t>(i * 13), 's'));
  }
}

void write_truncated(const std::string& directory) {
  const std::string path = directory + "/truncated";
  const UniqueFd fd = open_file(path, O_WRONLY);
  append(fd.get(), 100);
  REQUIRE(::truncate(path.c_str(), 100'001) == 0);
  REQUIRE(::truncate(path.c_str(), 50'000'000) == 0);
}

/// The file system's own setting, as it was when the object dies.
class XfsPreallocationLifetime {
 public:
  explicit XfsPreallocationLifetime(int seconds) {
    std::ifstream(path) >> before_;
    set(seconds);
  }
  XfsPreallocationLifetime(const XfsPreallocationLifetime&) = delete;
  XfsPreallocationLifetime& operator=(const XfsPreallocationLifetime&) = delete;
  ~XfsPreallocationLifetime() { set(before_); }

 private:
  static constexpr const char* path = "/proc/sys/fs/xfs/speculative_prealloc_lifetime";
  static void set(int seconds) { std::ofstream(path) << seconds << std::flush; }
  int before_ = 300;
};

int64_t blocks_of(const std::string& path) {
  struct stat st{};
  REQUIRE(::stat(path.c_str(), &st) == 0);
  return st.st_blocks;
}

}  // namespace

TEST_CASE("in due time after the last write rdisk is what du prints on every filesystem") {
  const auto kind = GENERATE(values<Lower>({{LowerKind::ext4, ""},
                                            {LowerKind::xfs, ""},
                                            {LowerKind::btrfs, ""},
                                            {LowerKind::btrfs, "compress=zstd"},
                                            {LowerKind::tmpfs, ""}}));
  if (!can_mount() || !can_mount_lower(kind.kind)) return;
  INFO(text_of(kind));
  const LowerFilesystem lower(kind.kind, {.mount_options = kind.options});
  const MountFolders folders(lower.path());
  const Mount mount(folders, {.options = "settle=1"});
  const std::pair<const char*, void (*)(const std::string&)> writers[] = {
      {"buffered", write_buffered}, {"allocated", write_allocated}, {"sparse", write_sparse},
      {"appended", write_appended}, {"many", write_many},           {"truncated", write_truncated}};
  for (const auto& [name, write] : writers) {
    REQUIRE(::mkdir(mount.at(name).c_str(), 0755) == 0);
    write(mount.at(name));
  }
  check_settled(mount, folders.source());
}

TEST_CASE("in due time rdisk is what du prints of files that stay open") {
  const LowerKind kind = GENERATE(from_range(all_lower_kinds));
  if (!can_mount() || !can_mount_lower(kind)) return;
  CAPTURE(kind);
  const LowerFilesystem lower(kind);
  const MountFolders folders(lower.path());
  const Mount mount(folders, {.options = "settle=1"});
  const UniqueFd sparse = open_file(mount.at("sparse"), O_WRONLY);
  const UniqueFd appended = open_file(mount.at("appended"), O_WRONLY | O_APPEND);
  for (off_t block = 0; block < 1500; ++block)
    write_block(sparse.get(), 2 * block);
  append(appended.get(), 300);
  check_settled(mount, folders.source());
}

TEST_CASE("rdisk follows when XFS takes back what it has allocated ahead") {
  if (!can_mount() || !can_mount_lower(LowerKind::xfs)) return;
  const XfsPreallocationLifetime lifetime(3);
  const LowerFilesystem lower(LowerKind::xfs);
  const MountFolders folders(lower.path());
  const Mount mount(folders, {.options = "settle=1"});
  // Closing trims a file only once.
  write_appended(mount.at());
  const UniqueFd open = open_file(mount.at("open"), O_WRONLY | O_APPEND);
  append(open.get(), 300);
  for (const auto& [name, before] : {std::pair("again", blocks_of(folders.source("again"))),
                                     std::pair("open", blocks_of(folders.source("open")))}) {
    INFO(name);
    for (int tries = 0; blocks_of(folders.source(name)) == before && tries < 300; ++tries)
      std::this_thread::sleep_for(100ms);
    CHECK(blocks_of(folders.source(name)) < before);
  }
  check_settled(mount, folders.source());
}
