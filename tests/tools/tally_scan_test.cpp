#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/fake_tree.hpp"
#include "tests/naive_count.hpp"
#include "tests/skip.hpp"
#include "tests/temp_folder.hpp"

using namespace tally::test;
using nlohmann::json;
namespace stdfs = std::filesystem;

namespace {

struct Outcome {
  int status;
  std::string output;
};

/// Runs `tally` with these arguments, as the shell reads them, after another command of its.
Outcome run_tally(const std::string& arguments, const std::string& before = "true") {
  FILE* pipe = ::popen((before + "; '" TALLY_BINARY "' " + arguments).c_str(), "r");
  REQUIRE(pipe != nullptr);
  Outcome outcome{};
  char part[4096];
  for (std::size_t got; (got = std::fread(part, 1, sizeof part, pipe)) != 0;)
    outcome.output.append(part, got);
  outcome.status = WEXITSTATUS(::pclose(pipe));
  return outcome;
}

}  // namespace

TEST_CASE("tally scan --json has all totals under the counters' names") {
  const uint64_t seed = seed_or(61);
  INFO("seed " << seed);
  const TempFolder folder("tally");
  make_fake_tree(folder.path(), TreeShape::hard_links, seed);
  const Counters expected = naive_count(folder.path()).at("");
  const Outcome outcome = run_tally("scan --json " + folder.path());
  CHECK(outcome.status == 0);
  const json totals = json::parse(outcome.output);
  CHECK(totals.at("path") == folder.path());
  CHECK(totals.at("rbytes") == expected.rbytes);
  CHECK(totals.at("rdisk") == expected.rdisk);
  CHECK(totals.at("rfiles") == expected.rfiles);
  CHECK(totals.at("rsubdirs") == expected.rsubdirs);
  CHECK(totals.at("rentries") == expected.rentries);
  CHECK(totals.at("runique") == expected.runique);
  CHECK(totals.at("errors") == 0);
  CHECK(totals.at("seconds") > 0);
}

TEST_CASE("tally scan --top lists the largest directories, also those whose names aren't UTF-8") {
  const TempFolder folder("tally");
  for (const auto& [name, size_bytes] :
       {std::pair{"small", 1'000}, {"large\xff", 300'000}, {"middle", 100'000}}) {
    stdfs::create_directory(folder.path() + "/" + name);
    std::ofstream(folder.path() + "/" + name + "/file") << std::string(size_bytes, 'x');
  }
  sync_filesystem(folder.path());
  const json totals = json::parse(run_tally("scan --json --top 2 " + folder.path()).output);
  REQUIRE(totals.at("top").size() == 2);
  CHECK(totals["top"][0].at("path") == folder.path() + "/large\xef\xbf\xbd");
  CHECK(totals["top"][0].at("path_hex").get<std::string>().ends_with("2f6c61726765ff"));
  CHECK(totals["top"][1].at("path") == folder.path() + "/middle");
  CHECK(totals["top"][1].count("path_hex") == 0);
  CHECK(totals["top"][1].at("rbytes") == 100'000);
}

TEST_CASE("tally scan --json --top has an empty list where there are no directories below") {
  const TempFolder folder("tally");
  CHECK(json::parse(run_tally("scan --json --top 2 " + folder.path()).output).at("top").empty());
  CHECK(json::parse(run_tally("scan --json " + folder.path()).output).count("top") == 0);
}

TEST_CASE("totals that can't be written are a failure, for people, programs and as help") {
  const TempFolder folder("tally");
  for (const std::string& arguments : {"scan " + folder.path(), "scan --json " + folder.path(),
                                       std::string("--help"), std::string("scan --help")}) {
    INFO(arguments);
    const Outcome outcome = run_tally(arguments + " 2>&1 >/dev/full");
    CHECK(outcome.status == 1);
    CHECK(outcome.output == "tally: cannot write the output: No space left on device\n");
  }
}

TEST_CASE("tally scan for people shows a size in binary units and exactly") {
  const TempFolder folder("tally");
  std::ofstream(folder.path() + "/file") << std::string(3 << 20, 'x');
  const std::string output = run_tally("scan --threads 2 " + folder.path()).output;
  CHECK(output.find("3.0 MiB  (3,145,728 bytes)") != std::string::npos);
  CHECK(output.find("\r") == std::string::npos);  // no progress line but on a terminal
}

TEST_CASE(
    "tally scan --max-dirs leaves the room for hard links as it is, which has its own limit") {
  const TempFolder folder("tally");
  for (int i = 0; i < 8; ++i) {
    const std::string file = folder.path() + "/" + std::to_string(i);
    std::ofstream(file) << "12345";
    stdfs::create_hard_link(file, file + "link");
  }
  const Outcome few_directories = run_tally("scan --json --max-dirs 2 " + folder.path());
  CHECK(few_directories.status == 0);
  CHECK(json::parse(few_directories.output).at("rbytes") == 8 * 5);
  const Outcome few_links = run_tally("scan --json --max-links 6 " + folder.path() + " 2>&1");
  CHECK(few_links.status == 1);
  CHECK(few_links.output.find("does not fit") != std::string::npos);
}

// Sanitizers need terabytes of address space for themselves.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("tally scan says what to do when there is too little address space, and it helps") {
  const TempFolder folder("tally");
  const Outcome full = run_tally("scan " + folder.path() + " 2>&1", "ulimit -v 2000000");
  CHECK(full.status == 1);
  CHECK(full.output.find("--max-dirs") != std::string::npos);
  CHECK(full.output.find("--max-links") != std::string::npos);
  CHECK(run_tally("scan --max-dirs 1000 --max-links 1000 --threads 1 " + folder.path(),
                  "ulimit -v 2000000")
            .status == 0);
}
#endif

TEST_CASE("the exit status of tally is 1 when something can't be counted, and 2 for wrong usage") {
  const TempFolder folder("tally");
  for (int i = 0; i < 20; ++i)
    stdfs::create_directory(folder.path() + "/" + std::to_string(i));
  const Outcome full = run_tally("scan --max-dirs 5 " + folder.path() + " 2>&1");
  CHECK(full.status == 1);
  // Sixteen don't fit: ten are named, the rest is a number.
  CHECK(full.output.find("and 6 more that") != std::string::npos);

  const Outcome missing = run_tally("scan " + folder.path() + "/missing 2>&1");
  CHECK(missing.status == 1);
  CHECK(missing.output ==
        "tally: cannot scan " + folder.path() + "/missing: No such file or directory\n");
  CHECK(run_tally("scan --no-such-option 2>&1").status == 2);
  CHECK(run_tally("2>&1").status == 2);
  CHECK(run_tally("--help").status == 0);
}

TEST_CASE("tally -V prints the version with status 0") {
  const Outcome version = run_tally("-V");
  CHECK(version.status == 0);
  CHECK(version.output.starts_with("tally "));
  CHECK(version.output.find_first_of("0123456789") != std::string::npos);
}

TEST_CASE("tally scan -x counts what a mount covers instead of the mount") {
  if (::geteuid() != 0) return skip("mounting needs root");
  const TempFolder folder("tally");
  const std::string covered = folder.path() + "/covered";
  stdfs::create_directory(covered);
  std::ofstream(covered + "/file") << "12345";
  REQUIRE(::mount("tallyfs-test", covered.c_str(), "tmpfs", 0, nullptr) == 0);
  std::ofstream(covered + "/other") << "123";
  const Outcome whole = run_tally("scan --json " + folder.path());
  const Outcome one = run_tally("scan -x --json " + folder.path());
  CHECK(::umount2(covered.c_str(), MNT_DETACH) == 0);
  CHECK(whole.status == 0);
  CHECK(one.status == 0);
  CHECK(json::parse(whole.output).at("rbytes") == 3);
  CHECK(json::parse(one.output).at("rbytes") == 5);
  CHECK(json::parse(one.output).at("errors") == 0);
}
