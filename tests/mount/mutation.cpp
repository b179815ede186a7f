#include "tests/mount/mutation.hpp"

#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>

#include <catch2/catch.hpp>

namespace tally::test {
namespace {

const MountFolders& with_small_tree(const MountFolders& folders) {
  for (const char* path : {"a/b/c/empty", "x/y", "x/empty"}) {
    std::filesystem::create_directories(folders.source(path));
  }
  write_file(folders.source("a/b/c/file"), std::string(100, 'f'));
  write_file(folders.source("a/b/c/twin"), std::string(300, 't'));
  write_file(folders.source("x/y/other"), std::string(200, 'o'));
  std::filesystem::create_hard_link(folders.source("a/b/c/twin"), folders.source("x/y/twin"));
  sync_filesystem(folders.source());
  return folders;
}

/// The directories and all that contain them, the root as "".
std::set<std::string> with_ancestors(const std::vector<std::string>& directories) {
  std::set<std::string> all{""};
  for (std::string path : directories) {
    while (!path.empty()) {
      all.insert(path);
      const size_t slash = path.rfind('/');
      path.resize(slash == std::string::npos ? 0 : slash);
    }
  }
  return all;
}

}  // namespace

Mutation::Mutation() : mount_(with_small_tree(folders_)) {}

void Mutation::change(const std::string& what, const std::vector<std::string>& directories,
                      const std::function<bool()>& action) {
  INFO("change: " << what);
  const std::set<std::string> changed = with_ancestors(directories);
  std::map<std::string, int64_t> rgen_before;
  for (const std::string& path : changed) {
    rgen_before[path] = std::filesystem::exists(at(path)) ? counter(at(path), "rgen") : int64_t{-1};
  }
  errno = 0;
  const bool succeeded = action();
  INFO("errno " << errno);
  REQUIRE(succeeded);
  for (const std::string& path : changed) {
    if (!std::filesystem::exists(at(path))) continue;
    INFO("directory '" << path << "'");
    CHECK(counter(at(path), "rgen") > rgen_before[path]);
  }
  check_counters(mount_);
}

UniqueFd Mutation::open(const std::string& path, int flags, mode_t mode) const {
  UniqueFd fd(::open(at(path).c_str(), flags | O_CLOEXEC, mode));
  INFO("open " << path << ": errno " << errno);
  REQUIRE(fd.get() >= 0);
  return fd;
}

}  // namespace tally::test
