#include "tests/naive_count.hpp"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/temp_folder.hpp"

using namespace tally::test;

namespace {

/// The first number that a shell command prints.
int64_t number_from(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  long long number = -1;
  REQUIRE(std::fscanf(pipe.get(), "%lld", &number) == 1);
  return number;
}

}  // namespace

TEST_CASE("the naive count agrees with du and find on every directory of a fake tree") {
  const uint64_t seed = seed_or(11);
  for (const TreeShape shape : {TreeShape::mixed, TreeShape::hard_links}) {
    INFO("shape " << name_of(shape) << ", seed " << seed);
    const TempFolder folder("naive");
    make_fake_tree(folder.path(), shape, seed, 150);

    const CountMap counted = naive_count(folder.path());

    REQUIRE(counted.size() > 5);
    for (const auto& [path, counters] : counted) {
      INFO("directory " << path);
      // By a symbolic link, so that no name needs quoting for the shell.
      const std::string link = folder.path() + "-link";
      std::filesystem::create_directory_symlink(
          path.empty() ? folder.path() : folder.path() + "/" + path, link);
      CHECK(counters.rdisk == number_from("du -s -B1 " + link + "/"));
      CHECK(counters.rentries + 1 == number_from("du -s --inodes " + link + "/"));
      CHECK(counters.rbytes == number_from("find " + link +
                                           "/ ! -type d -printf '%D:%i %s\\n' | sort -u | "
                                           "awk '{s += $2} END {printf \"%.0f\\n\", s}'"));
      CHECK(counters.rsubdirs + 1 ==
            number_from("find " + link + "/ -type d -printf 'd\\n' | wc -l"));
      CHECK(counters.entries ==
            number_from("find " + link + "/ -mindepth 1 -maxdepth 1 -printf 'e\\n' | wc -l"));
      std::filesystem::remove(link);
    }
  }
}

TEST_CASE("the naive count calls unique what removing the directory would free") {
  const TempFolder folder("naive");
  namespace stdfs = std::filesystem;
  const stdfs::path root = folder.path();
  stdfs::create_directories(root / "a/b");
  std::ofstream(root / "a/only-here") << std::string(10'000, 'x');
  std::ofstream(root / "a/shared") << std::string(20'000, 'x');
  stdfs::create_hard_link(root / "a/shared", root / "outside");
  stdfs::create_hard_link(root / "a/only-here", root / "a/b/second-name");
  sync_filesystem(folder.path());

  CountMap counted = naive_count(folder.path());

  CHECK(counted["a"].rbytes == 30'000);
  CHECK(counted["a"].rfiles == 2);
  CHECK(counted["a"].rdisk - counted["a"].runique == 20'480);
  CHECK(counted["a/b"].rdisk - counted["a/b"].runique == 12'288);
  CHECK(counted[""].rdisk == counted[""].runique);
}

TEST_CASE("a fake tree is the same for the same seed and differs for another") {
  const TempFolder first("fake");
  const TempFolder second("fake");
  const TempFolder third("fake");
  const auto without_times = [](CountMap counted) {
    for (auto& [path, counters] : counted)
      counters.rctime_ns = 0;
    return counted;
  };
  for (const TreeShape shape : all_tree_shapes) {
    const std::string below = std::string("/") + name_of(shape);
    for (const TempFolder* folder : {&first, &second, &third}) {
      std::filesystem::create_directory(folder->path() + below);
      make_fake_tree(folder->path() + below, shape, folder == &third ? 6 : 5);
    }
    const CountMap counted = without_times(naive_count(first.path() + below));
    CHECK(counted.at("").rentries > 100);
    CHECK(counted == without_times(naive_count(second.path() + below)));
    CHECK_FALSE(counted == without_times(naive_count(third.path() + below)));
  }
}
