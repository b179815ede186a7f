#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include <catch2/catch.hpp>

#include "core/scanner.hpp"
#include "fs/filesystem.hpp"
#include "tests/temp_folder.hpp"

// The kernel revalidates names by LOOKUP while requests change them: here without a kernel in
// between, so that they meet as often as can be. One thread changes names, as it is in one
// directory of a mount; others look the same names up.

using tally::Bytes;
using tally::DirCounters;
using tally::Scanner;
using tally::UniqueFd;
using tally::fs::Caller;
using tally::fs::Filesystem;
using tally::fs::NodeId;
using tally::test::TempFolder;

namespace {

constexpr int rounds = 3000;

/// A scanned, empty directory with `path` below it made beforehand.
class Served {
 public:
  Served() {
    Scanner scanner(filesystem_.accounts().tree(), filesystem_.accounts().links());
    REQUIRE(scanner.run(source_.get()));
    filesystem_.start();
  }

  Filesystem& operator*() { return filesystem_; }
  Filesystem* operator->() { return &filesystem_; }
  [[nodiscard]] std::string path(const std::string& name) const {
    return folder_.path() + "/" + name;
  }
  [[nodiscard]] DirCounters root_counters() {
    auto& tree = filesystem_.accounts().tree();
    return tree.counters(tree.root());
  }

  /// Calls `change` again and again while two threads look `name` up in the root.
  template <class Change>
  void while_looked_up(const char* name, Change change) {
    std::atomic<bool> over = false;
    const auto look = [&] {
      while (!over) {
        const auto found = filesystem_.lookup(root, name);
        if (found) filesystem_.forget(found->ino, 1);
      }
    };
    std::thread one(look);
    std::thread other(look);
    for (int round = 0; round < rounds; ++round)
      change();
    over = true;
    one.join();
    other.join();
  }

  static constexpr NodeId root = 1;
  const Caller caller{.uid = ::getuid(), .gid = ::getgid(), .pid = ::getpid(), .umask = 022};

 private:
  const TempFolder folder_{"names"};
  const UniqueFd source_{::open(folder_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  Filesystem filesystem_{source_.get(), {}};
};

}  // namespace

TEST_CASE("threads that look a directory up while it is made and removed count no ghost of it") {
  Served served;
  served.while_looked_up("d", [&] {
    const auto made = served->mkdir(served.caller, Served::root, "d", 0755);
    REQUIRE(made);
    REQUIRE(served->rmdir(Served::root, "d"));
    served->forget(made->ino, 1);
  });
  CHECK(served.root_counters().rsubdirs == 0);
  CHECK(served.root_counters().subdirs == 0);
  CHECK_FALSE(served.root_counters().suspect);
  CHECK(served->accounts().tree().nodes_held() == 1);
  CHECK(served->inodes().size() == 1);
}

TEST_CASE("threads that look a file up while it is made and removed leave it counted once") {
  Served served;
  served.while_looked_up("f", [&] {
    const auto made = served->mknod(served.caller, Served::root, "f", S_IFREG | 0644, 0);
    REQUIRE(made);
    REQUIRE(served.root_counters().rfiles == 1);
    REQUIRE(served->unlink(Served::root, "f"));
    REQUIRE(served.root_counters().rfiles == 0);
    served->forget(made->ino, 1);
  });
  CHECK(served.root_counters().files == 0);
  CHECK_FALSE(served.root_counters().suspect);
  CHECK(served->accounts().links().size() == 0);
  CHECK(served->inodes().size() == 1);
}

TEST_CASE("threads that look a name up while others are renamed over it find one or the other") {
  Served served;
  REQUIRE(served->mkdir(served.caller, Served::root, "d", 0755));
  served.while_looked_up("d", [&] {
    const auto made = served->mkdir(served.caller, Served::root, "new", 0755);
    REQUIRE(made);
    REQUIRE(served->rename(served.caller, Served::root, "new", Served::root, "d", 0));
    served->forget(made->ino, 1);
    const auto file = served->mknod(served.caller, Served::root, "f", S_IFREG | 0644, 0);
    REQUIRE(file);
    REQUIRE(served->unlink(Served::root, "f"));
    served->forget(file->ino, 1);
  });
  CHECK(served.root_counters().rsubdirs == 1);
  CHECK(served.root_counters().rfiles == 0);
  CHECK_FALSE(served.root_counters().suspect);
}

TEST_CASE(
    "a create that finds the name taken behind our back sends the kernel back to look it up") {
  Served served;
  std::ofstream(served.path("secret")) << "not for everybody";
  const auto created =
      served->create(served.caller, Served::root, "secret", 0644, O_RDWR | O_CREAT | O_TRUNC);
  REQUIRE_FALSE(created);
  // Only the kernel knows whether the caller may open what is there.
  CHECK(created.error().value == ESTALE);
  std::ifstream file(served.path("secret"));
  std::string content;
  std::getline(file, content);
  CHECK(content == "not for everybody");
}
