#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <random>
#include <thread>

#include <catch2/catch.hpp>

#include "core/scanner.hpp"
#include "fs/filesystem.hpp"
#include "fs/settler.hpp"
#include "tests/naive_count.hpp"
#include "tests/temp_folder.hpp"

// What becomes of the blocks of files that were released, without the half minute that a mount
// waits. Requests come from threads of their own, since these become somebody else.

using namespace std::chrono_literals;
using tally::UniqueFd;
using tally::fs::Caller;
using tally::fs::Filesystem;
using tally::fs::Settler;
using tally::test::TempFolder;

namespace {

constexpr off_t block_bytes = 4096;

class SettlingFilesystem {
 public:
  SettlingFilesystem() {
    scanner_.run(source_.get()).value();
    filesystem_.start();
    filesystem_.set_settler(&settler_);
  }

  /// Makes a file with these blocks written, in this order; synced after the first `synced` of
  /// them, and released.
  void write_file(const std::string& name, const std::vector<off_t>& blocks, std::size_t synced) {
    on_request_thread([&] {
      const auto created = filesystem_.create(caller_, FUSE_ROOT_ID, name.c_str(), 0644, O_WRONLY);
      tally::fs::OpenFile* const file = created.value().opened.file;
      const std::string block(block_bytes, 's');
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (i == synced) static_cast<void>(filesystem_.fsync(*file, false));
        static_cast<void>(filesystem_.write(caller_, *file, block, blocks[i] * block_bytes,
                                            Filesystem::WriteKind::at_offset));
      }
      filesystem_.release(file);
    });
  }

  /// Waits until as many files have been settled.
  void wait_until_settled(std::size_t count) {
    for (int tries = 0; settled_ < count && tries < 3000; ++tries)
      std::this_thread::sleep_for(10ms);
    REQUIRE(settled_ == count);
  }

  [[nodiscard]] int64_t counted_bytes() {
    auto& tree = filesystem_.accounts().tree();
    return tree.counters(tree.root()).rdisk.count * 512;
  }

  [[nodiscard]] int64_t bytes_on_disk() const {
    tally::test::sync_filesystem(folder_.path());
    return tally::test::naive_count(folder_.path()).at("").rdisk;
  }

 private:
  static void on_request_thread(const std::function<void()>& work) { std::thread(work).join(); }

  TempFolder folder_{"settle"};
  UniqueFd source_{::open(folder_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  Filesystem filesystem_{source_.get(), {}};
  tally::Scanner scanner_{filesystem_.accounts().tree(), filesystem_.accounts().links(), {}};
  const Caller caller_ = {.uid = ::geteuid(), .gid = ::getegid(), .pid = ::getpid()};
  std::atomic<std::size_t> settled_ = 0;
  Settler settler_{1000, 0ms, [this](uint64_t node, Settler::Call) {
                     filesystem_.settle(node, Filesystem::Settling::written_back);
                     ++settled_;
                   }};
};

}  // namespace

TEST_CASE("a file with many holes settles with the blocks of its tree of extents") {
  SettlingFilesystem test;
  std::vector<off_t> blocks(2000);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    blocks[i] = static_cast<off_t>(2 * i);
  test.write_file("sparse", blocks, 0);
  test.wait_until_settled(1);
  const int64_t counted = test.counted_bytes();
  CHECK(counted == test.bytes_on_disk());
}

TEST_CASE("a file whose holes were filled settles without the blocks that are given back") {
  SettlingFilesystem test;
  std::mt19937 random(1);
  std::vector<off_t> blocks(400);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    blocks[i] = static_cast<off_t>(i);
  constexpr std::size_t files = 20;
  for (std::size_t i = 0; i < files; ++i) {
    std::shuffle(blocks.begin(), blocks.end(), random);
    test.write_file("file" + std::to_string(i), blocks, blocks.size() / 2);
  }
  test.wait_until_settled(files);
  const int64_t counted = test.counted_bytes();
  CHECK(counted == test.bytes_on_disk());
}
