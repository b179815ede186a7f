#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/mount/mutation.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

bool writes(int fd, size_t length, off_t offset) {
  const std::string bytes(length, 'w');
  return ::pwrite(fd, bytes.data(), length, offset) == static_cast<ssize_t>(length);
}

/// A last close reaches the daemon after close() has returned.
bool has_no_orphans_soon(const Mutation& test) {
  for (int tries = 0; tries < 500; ++tries) {
    if (counter(test.at(""), "orphan_bytes") == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace

TEST_CASE("new names of every type move the totals of all ancestors at once") {
  if (!can_mount()) return;
  Mutation test;
  test.change("create", {"a/b/c"},
              [&] { return static_cast<bool>(test.open("a/b/c/new", O_CREAT | O_WRONLY)); });
  test.change("mkdir", {"a/b/c"}, [&] { return ::mkdir(test.at("a/b/c/dir").c_str(), 0755) == 0; });
  test.change("mkdir in the new one", {"a/b/c/dir"},
              [&] { return ::mkdir(test.at("a/b/c/dir/dir").c_str(), 0755) == 0; });
  test.change("symlink", {"x/y"},
              [&] { return ::symlink("short", test.at("x/y/symlink").c_str()) == 0; });
  test.change("long symlink", {"x/y"}, [&] {
    return ::symlink(std::string(500, 's').c_str(), test.at("x/y/long").c_str()) == 0;
  });
  for (const mode_t type : {0U + S_IFREG, 0U + S_IFIFO, 0U + S_IFSOCK, 0U + S_IFCHR}) {
    const std::string name = "a/node" + std::to_string(type);
    test.change("mknod", {"a"},
                [&] { return ::mknod(test.at(name).c_str(), type | 0644, makedev(1, 3)) == 0; });
    test.change("unlink it", {"a"}, [&] { return ::unlink(test.at(name).c_str()) == 0; });
  }
  test.change("rmdir", {"a/b/c/dir"},
              [&] { return ::rmdir(test.at("a/b/c/dir/dir").c_str()) == 0; });
  test.change("unlink a symlink", {"x/y"},
              [&] { return ::unlink(test.at("x/y/long").c_str()) == 0; });
}

TEST_CASE("links count once in every directory, however many names there are") {
  if (!can_mount()) return;
  Mutation test;
  const auto links = [&](const char* from, const char* to) {
    return ::link(test.at(from).c_str(), test.at(to).c_str()) == 0;
  };
  test.change("link across directories", {"x/y"}, [&] { return links("a/b/c/file", "x/y/file"); });
  CHECK(counter(test.at(""), "rbytes") == 600);
  CHECK(counter(test.at("x"), "rbytes") == 600);
  test.change("link in the same directory", {"a/b/c"},
              [&] { return links("a/b/c/file", "a/b/c/file2"); });
  test.change("link to a level above", {"a"}, [&] { return links("a/b/c/file", "a/file"); });
  for (const char* name : {"a/b/c/file", "x/y/file", "a/b/c/file2", "a/file", "a/b/c/twin"}) {
    const std::string path = name;
    test.change("unlink " + path, {path.substr(0, path.rfind('/'))},
                [&] { return ::unlink(test.at(path).c_str()) == 0; });
  }
  CHECK(counter(test.at(""), "rbytes") == 500);
}

TEST_CASE("bytes of an unlinked open file are the root's orphans until its last close") {
  if (!can_mount()) return;
  Mutation test;
  UniqueFd fd = test.open("a/b/c/file", O_RDWR);
  UniqueFd second = test.open("a/b/c/file", O_RDONLY);
  test.change("unlink", {"a/b/c"}, [&] { return ::unlink(test.at("a/b/c/file").c_str()) == 0; });
  CHECK(counter(test.at(""), "orphan_bytes") == 100);
  REQUIRE(writes(fd.get(), 5000, 0));
  check_counters(test.mount());
  CHECK(counter(test.at(""), "orphan_bytes") == 5000);
  REQUIRE(::ftruncate(fd.get(), 10) == 0);
  CHECK(counter(test.at(""), "orphan_bytes") == 10);
  fd.reset();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  CHECK(counter(test.at(""), "orphan_bytes") == 10);
  second.reset();
  CHECK(has_no_orphans_soon(test));
  check_counters(test.mount());
}

TEST_CASE("a file with another name left is no orphan when one name goes while it is open") {
  if (!can_mount()) return;
  Mutation test;
  const UniqueFd fd = test.open("a/b/c/twin", O_RDWR);
  test.change("unlink one name", {"a/b/c"},
              [&] { return ::unlink(test.at("a/b/c/twin").c_str()) == 0; });
  CHECK(counter(test.at(""), "orphan_bytes") == 0);
  test.change("grow it by the name that is gone", {"x/y"},
              [&] { return writes(fd.get(), 4000, 0); });
  test.change("unlink the other name", {"x/y"},
              [&] { return ::unlink(test.at("x/y/twin").c_str()) == 0; });
  CHECK(counter(test.at(""), "orphan_bytes") == 4000);
}

TEST_CASE("a nameless file is an orphan until linkat names it") {
  if (!can_mount()) return;
  Mutation test;
  UniqueFd fd = test.open("a/b", O_TMPFILE | O_RDWR);
  REQUIRE(writes(fd.get(), 3000, 0));
  CHECK(counter(test.at(""), "orphan_bytes") == 3000);
  check_counters(test.mount());
  const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
  test.change("linkat", {"x/y"}, [&] {
    return ::linkat(AT_FDCWD, link.c_str(), AT_FDCWD, test.at("x/y/named").c_str(),
                    AT_SYMLINK_FOLLOW) == 0;
  });
  CHECK(counter(test.at(""), "orphan_bytes") == 0);
  test.change("grow", {"x/y"}, [&] { return writes(fd.get(), 6000, 0); });
  UniqueFd dropped = test.open("a", O_TMPFILE | O_RDWR);
  REQUIRE(writes(dropped.get(), 1000, 0));
  CHECK(counter(test.at(""), "orphan_bytes") == 1000);
  dropped.reset();
  CHECK(has_no_orphans_soon(test));
}

TEST_CASE("renames of every kind move the totals of all ancestors on both sides at once") {
  if (!can_mount()) return;
  Mutation test;
  const auto moves = [&](const char* from, const char* to, unsigned flags = 0) {
    return ::renameat2(AT_FDCWD, test.at(from).c_str(), AT_FDCWD, test.at(to).c_str(), flags) == 0;
  };
  test.change("a file in its directory", {"a/b/c"},
              [&] { return moves("a/b/c/file", "a/b/c/renamed"); });
  test.change("a file across", {"a/b/c", "x"}, [&] { return moves("a/b/c/renamed", "x/moved"); });
  test.change("a directory across", {"a/b", "x/y"}, [&] { return moves("a/b/c", "x/y/c"); });
  test.change("a directory upwards", {"x", ""}, [&] { return moves("x/y", "y"); });
  test.change("onto a file", {"x", "y"}, [&] { return moves("x/moved", "y/other"); });
  test.change("onto an empty directory", {"a", "x"}, [&] { return moves("a/b", "x/empty"); });
  test.change("NOREPLACE", {"y", "a"},
              [&] { return moves("y/other", "a/other", RENAME_NOREPLACE); });
  CHECK_FALSE(moves("a/other", "y/twin", RENAME_NOREPLACE));
  check_counters(test.mount());
  test.change("one of two names onto a third file", {"y/c", "a"},
              [&] { return moves("y/c/twin", "a/other"); });
}

TEST_CASE("exchange swaps what is below two names") {
  if (!can_mount()) return;
  Mutation test;
  const auto exchanges = [&](const char* one, const char* two) {
    return ::renameat2(AT_FDCWD, test.at(one).c_str(), AT_FDCWD, test.at(two).c_str(),
                       RENAME_EXCHANGE) == 0;
  };
  test.change("two files", {"a/b/c", "x/y"}, [&] { return exchanges("a/b/c/file", "x/y/other"); });
  test.change("a file and a directory", {"a/b", "x/y"},
              [&] { return exchanges("a/b/c", "x/y/other"); });
  test.change("two directories", {"x"}, [&] { return exchanges("x/y", "a"); });
  test.change("two in one directory", {"x"}, [&] { return exchanges("x/y", "x/empty"); });
}

TEST_CASE("a whiteout leaves a device node at the source") {
  if (!can_mount()) return;
  Mutation test;
  test.change("whiteout", {"a/b/c", "x/y"}, [&] {
    return ::renameat2(AT_FDCWD, test.at("a/b/c/file").c_str(), AT_FDCWD,
                       test.at("x/y/moved").c_str(), RENAME_WHITEOUT) == 0;
  });
  CHECK(counter(test.at("a/b/c"), "files") == 2);
}

TEST_CASE("renaming one name of a file onto another of its names changes nothing") {
  if (!can_mount()) return;
  Mutation test;
  REQUIRE(::rename(test.at("a/b/c/twin").c_str(), test.at("x/y/twin").c_str()) == 0);
  check_counters(test.mount());
  CHECK(counter(test.at("a/b/c"), "files") == 2);
  CHECK(counter(test.at("x/y"), "files") == 2);
}

TEST_CASE("a rename over an open file makes it an orphan") {
  if (!can_mount()) return;
  Mutation test;
  UniqueFd victim = test.open("x/y/other", O_RDWR);
  test.change("overwrite", {"a/b/c", "x/y"}, [&] {
    return ::rename(test.at("a/b/c/file").c_str(), test.at("x/y/other").c_str()) == 0;
  });
  CHECK(counter(test.at(""), "orphan_bytes") == 200);
  REQUIRE(writes(victim.get(), 7000, 0));
  CHECK(counter(test.at(""), "orphan_bytes") == 7000);
  check_counters(test.mount());
  victim.reset();
  CHECK(has_no_orphans_soon(test));
}

TEST_CASE("calls that fail leave every counter as it was") {
  if (!can_mount()) return;
  Mutation test;
  const int64_t rgen = counter(test.at(""), "rgen");
  CHECK(::unlink(test.at("a/b/c/missing").c_str()) == -1);
  CHECK(::rmdir(test.at("a/b").c_str()) == -1);
  CHECK(::unlink(test.at("a/b").c_str()) == -1);
  CHECK(::mkdir(test.at("a/b").c_str(), 0755) == -1);
  CHECK(::link(test.at("a/b/c/file").c_str(), test.at("x/y/other").c_str()) == -1);
  CHECK(::rename(test.at("a").c_str(), test.at("x").c_str()) == -1);
  CHECK(::open(test.at("a/b/c/file").c_str(), O_CREAT | O_EXCL, 0644) == -1);
  check_counters(test.mount());
  CHECK(counter(test.at(""), "rgen") == rgen);
}
