#include <filesystem>
#include <string>
#include <vector>

#include <catch2/catch.hpp>

#include "core/scanner.hpp"
#include "tests/core/scanned.hpp"
#include "tests/temp_folder.hpp"

using namespace tally;
using namespace tally::test;
namespace stdfs = std::filesystem;

namespace {

/// `width` directories in each, `depth` levels deep. Returns how many that is.
int64_t make_levels(const std::string& root, int width, int depth) {
  int64_t made = 0;
  std::vector<std::string> level{root};
  for (int below = 0; below < depth; ++below) {
    std::vector<std::string> next;
    for (const std::string& above : level)
      for (int i = 0; i < width; ++i) {
        next.push_back(above + "/" + std::to_string(i));
        stdfs::create_directory(next.back());
      }
    made += static_cast<int64_t>(next.size());
    level = std::move(next);
  }
  return made;
}

void require_all_counted(const Scanned& scanned, int64_t directories) {
  for (const uint64_t errors : scanned.summary.errors)
    CHECK(errors == 0);
  CHECK(scanned.tree.counters(scanned.tree.root()).rsubdirs == directories);
}

}  // namespace

TEST_CASE("chains of single directories, which are never opened in batches, leave few to close") {
  constexpr int chains = 16;
  constexpr int depth = 400;
  const TempFolder folder("scan");
  for (int i = 0; i < chains; ++i) {
    std::string path = folder.path() + "/" + std::to_string(i);
    for (int level = 1; level < depth; ++level)
      path += "/d";
    stdfs::create_directories(path);
  }
  const DescriptorLimit limit(256);
  require_all_counted(Scanned(folder.path(), {.threads = 4}), chains * depth);
}

TEST_CASE("more threads than there are descriptors for count everything all the same") {
  const TempFolder folder("scan");
  const int64_t directories = make_levels(folder.path(), 8, 4);
  const DescriptorLimit limit(128);
  require_all_counted(Scanned(folder.path(), {.threads = 32}), directories);
}
