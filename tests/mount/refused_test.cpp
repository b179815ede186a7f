// What the lower filesystem refuses to root, too, as one with a squashed root would: every call
// fails as natively, and no counter moves.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "core/unique_fd.hpp"
#include "tests/mount/child_process.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/lower_filesystem.hpp"
#include "tests/mount/mount.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

using Path = std::function<std::string(const std::string&)>;

struct Call {
  const char* name;
  std::function<bool(const Path& at)> succeeds;
};

bool can_open(const std::string& path, int flags) {
  return bool{UniqueFd(::open(path.c_str(), flags | O_CLOEXEC, 0644))};
}

bool can_write(const std::string& path, int flags) {
  const UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC));
  return fd && ::write(fd.get(), "more", 4) == 4;
}

/// Changes of `closed/file`, of the names in `closed`, and of what leads into it and out of it.
const std::vector<Call> changes = {
    {"create", [](const Path& at) { return can_open(at("closed/new"), O_CREAT | O_WRONLY); }},
    {"O_TMPFILE", [](const Path& at) { return can_open(at("closed"), O_TMPFILE | O_WRONLY); }},
    {"mkdir", [](const Path& at) { return ::mkdir(at("closed/new").c_str(), 0755) == 0; }},
    {"mkfifo", [](const Path& at) { return ::mkfifo(at("closed/new").c_str(), 0644) == 0; }},
    {"symlink", [](const Path& at) { return ::symlink("file", at("closed/new").c_str()) == 0; }},
    {"link into it",
     [](const Path& at) { return ::link(at("file").c_str(), at("closed/new").c_str()) == 0; }},
    {"link out of it",
     [](const Path& at) { return ::link(at("closed/file").c_str(), at("new").c_str()) == 0; }},
    {"unlink", [](const Path& at) { return ::unlink(at("closed/file").c_str()) == 0; }},
    {"rmdir", [](const Path& at) { return ::rmdir(at("closed/empty").c_str()) == 0; }},
    {"rename within it",
     [](const Path& at) {
       return ::rename(at("closed/file").c_str(), at("closed/new").c_str()) == 0;
     }},
    {"rename out of it",
     [](const Path& at) { return ::rename(at("closed/file").c_str(), at("new").c_str()) == 0; }},
    {"rename into it",
     [](const Path& at) { return ::rename(at("file").c_str(), at("closed/file").c_str()) == 0; }},
    {"exchange",
     [](const Path& at) {
       return ::renameat2(AT_FDCWD, at("file").c_str(), AT_FDCWD, at("closed/empty").c_str(),
                          RENAME_EXCHANGE) == 0;
     }},
    {"write", [](const Path& at) { return can_write(at("closed/file"), O_WRONLY); }},
    {"append", [](const Path& at) { return can_write(at("closed/file"), O_WRONLY | O_APPEND); }},
    {"O_TRUNC", [](const Path& at) { return can_open(at("closed/file"), O_WRONLY | O_TRUNC); }},
    {"truncate", [](const Path& at) { return ::truncate(at("closed/file").c_str(), 1) == 0; }},
    {"chmod", [](const Path& at) { return ::chmod(at("closed/file").c_str(), 0600) == 0; }},
    {"chown", [](const Path& at) { return ::chown(at("closed/file").c_str(), 1, 1) == 0; }},
    {"utimensat",
     [](const Path& at) {
       return ::utimensat(AT_FDCWD, at("closed/file").c_str(), nullptr, 0) == 0;
     }},
    {"setxattr",
     [](const Path& at) {
       return ::setxattr(at("closed/file").c_str(), "user.name", "value", 5, 0) == 0;
     }},
};

/// A file beside a directory with a file and an empty directory; the same through the mount and
/// natively.
class Places {
 public:
  explicit Places(const LowerFilesystem& lower) : folders_(lower.path()) {
    for (const Path& at : {source, native}) {
      REQUIRE(can_open(at("file"), O_CREAT | O_WRONLY));
      REQUIRE(::mkdir(at("closed").c_str(), 0755) == 0);
      REQUIRE(::mkdir(at("closed/empty").c_str(), 0755) == 0);
      REQUIRE(can_open(at("closed/file"), O_CREAT | O_WRONLY));
      REQUIRE(can_write(at("closed/file"), O_WRONLY));
    }
  }

  [[nodiscard]] const MountFolders& folders() const { return folders_; }

  const Path source = [this](const std::string& path) { return folders_.source(path); };
  const Path native = [this](const std::string& path) { return folders_.native(path); };

 private:
  MountFolders folders_;
};

/// Makes every change natively and through the mount, where none may succeed.
void check_refused(const Mount& mount, const Places& places) {
  const Path mounted = [&](const std::string& path) { return mount.at(path); };
  const int64_t generation = counter(mount.at(), "rgen");
  for (const Call& call : changes) {
    INFO(call.name);
    REQUIRE_FALSE(call.succeeds(places.native));
    const int error = errno;
    CHECK_FALSE(call.succeeds(mounted));
    CHECK(errno == error);
  }
  CHECK(counter(mount.at(), "rgen") == generation);
  check_counters(mount);
}

}  // namespace

TEST_CASE("what is immutable is so through the mount, for root too, and no counter moves") {
  if (!can_mount() || !can_mount_lower(LowerKind::ext4)) return;
  const LowerFilesystem lower(LowerKind::ext4);
  const Places places(lower);
  const std::vector<std::string> closed = {places.source("closed/file"), places.source("closed"),
                                           places.native("closed/file"), places.native("closed")};
  const auto chattr = [&](const std::string& change) {
    for (const std::string& path : closed)
      REQUIRE(run({"chattr", change, path}).status == 0);
  };
  chattr("+i");
  {
    const Mount mount(places.folders());
    check_refused(mount, places);
  }
  chattr("-i");
}

TEST_CASE("what becomes read-only below is so through the mount, and comes back unharmed") {
  if (!can_mount() || !can_mount_lower(LowerKind::ext4)) return;
  const LowerFilesystem lower(LowerKind::ext4);
  const Places places(lower);
  const Mount mount(places.folders());
  REQUIRE(run({"mount", "-o", "remount,ro", lower.path()}).status == 0);
  check_refused(mount, places);
  REQUIRE(run({"mount", "-o", "remount,rw", lower.path()}).status == 0);
  CHECK(can_write(mount.at("closed/file"), O_WRONLY | O_APPEND));
  CHECK(counter(mount.at(), "rbytes") == 8);
  check_counters(mount);
}
