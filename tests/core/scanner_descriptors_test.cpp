#include <sys/resource.h>

#include <filesystem>
#include <string>
#include <system_error>

#include <catch2/catch.hpp>

#include "core/scanner.hpp"
#include "tests/core/scanned.hpp"
#include "tests/temp_folder.hpp"

using namespace tally;
using namespace tally::test;
namespace stdfs = std::filesystem;

namespace {

/// While it lives this process may have no more than so many descriptors.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(rlim_t descriptors_max) {
    if (::getrlimit(RLIMIT_NOFILE, &was_) != 0) fail();
    const rlimit lowered{.rlim_cur = descriptors_max, .rlim_max = was_.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &lowered) != 0) fail();
  }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;
  ~DescriptorLimit() { ::setrlimit(RLIMIT_NOFILE, &was_); }

 private:
  [[noreturn]] static void fail() {
    throw std::system_error(errno, std::generic_category(), "limit of descriptors");
  }

  rlimit was_{};
};

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
