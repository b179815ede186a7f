#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include <catch2/catch.hpp>

#include "fs/settler.hpp"
#include "tests/fs/filesystem_fixture.hpp"

// What becomes of the blocks of files that were released, without the half minute that a mount
// waits.

using namespace std::chrono_literals;
using tally::fs::Filesystem;
using tally::fs::Settler;
using tally::test::FilesystemFixture;

namespace {

class SettlingFilesystem : public FilesystemFixture {
 public:
  SettlingFilesystem() { filesystem.set_settler(&settler_); }

  /// Makes a file with these blocks written, in this order; synced after the first `synced` of
  /// them, and released.
  void write_file(const std::string& name, const std::vector<off_t>& blocks, std::size_t synced) {
    on_request_thread([&] {
      tally::fs::OpenFile& file = create(name);
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (i == synced) filesystem.fsync(file, false).value();
        write_block(file, blocks[i]);
      }
      filesystem.release(&file);
    });
  }

  /// Gives every file the look that it waits for, and checks that as many waited.
  void settle(int count) {
    settler_.stop();
    REQUIRE(settled_ == count);
  }

 private:
  int settled_ = 0;
  Settler settler_{1000, 1h, [this](uint64_t node, Settler::Call) {
                     filesystem.settle(node, Filesystem::Settling::written_back);
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
  test.settle(1);
  const int64_t counted = test.counted_bytes();
  CHECK(counted == test.bytes_on_disk());
}

TEST_CASE("a file whose holes were filled settles without the blocks that are given back") {
  SettlingFilesystem test;
  std::mt19937 random(1);
  std::vector<off_t> blocks(400);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    blocks[i] = static_cast<off_t>(i);
  constexpr int files = 20;
  for (int i = 0; i < files; ++i) {
    std::shuffle(blocks.begin(), blocks.end(), random);
    test.write_file("file" + std::to_string(i), blocks, blocks.size() / 2);
  }
  test.settle(files);
  const int64_t counted = test.counted_bytes();
  CHECK(counted == test.bytes_on_disk());
}
