#include <sys/resource.h>

#include <catch2/catch.hpp>

#include "tests/fs/filesystem_fixture.hpp"

using tally::test::FilesystemFixture;

TEST_CASE("a close for which the daemon has no descriptor to close syncs the file instead") {
  FilesystemFixture test;
  bool closed = false;
  FilesystemFixture::on_request_thread([&] {
    tally::fs::OpenFile& file = test.create("sparse");
    for (off_t i = 0; i < 2000; ++i)
      test.write_block(file, 2 * i);
    rlimit before;
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = 0;  // open descriptors stay, new ones are EMFILE
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    closed = test.filesystem.flush(file).has_value();
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    test.filesystem.release(&file);
  });
  CHECK(closed);
  // Blocks of the tree of extents are there only once the file was written out.
  const int64_t counted = test.counted_bytes();
  CHECK(counted == test.bytes_on_disk());
}
