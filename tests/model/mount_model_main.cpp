// mount_model: random system calls on mounts, with every counter compared with a recount.
//
//     command line ─ a test session of one case ─ rounds on fresh mounts ─ shrunk script ─ status
//
// The fixtures that mount are those of the tests, and report through Catch2: so this program is a
// test session, whose only case is the run. Status 0: no difference; 1: one; 2: usage.

#define CATCH_CONFIG_RUNNER
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <stdexcept>

#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>

#include "tests/mount/calls_run.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/uring_enabled.hpp"

using namespace tally::test;

namespace {

struct Options {
  CallsRun run;
  std::string io = "direct";
  std::string more_options;
  std::string replay;
  std::string script = "mount_model.script";
};
Options options;

std::string command_line() {
  std::string text = "mount_model --filesystem " + std::string(name_of(options.run.lower)) +
                     " --io " + options.io + " --threads " + std::to_string(options.run.threads);
  if (!options.more_options.empty()) text += " --options " + options.more_options;
  return text;
}

}  // namespace

TEST_CASE("mount_model") {
  if (!can_mount_lower(options.run.lower) || !can_mount()) FAIL("can't mount here");
  std::optional<UringEnabled> enabled;
  if (options.run.options.find("uring=on") != std::string::npos) {
    enabled.emplace();
    if (!can_use(*enabled)) FAIL("io_uring can't be used here");
  }
  if (!options.replay.empty()) {
    std::ifstream file(options.replay);
    const auto failure = replay_calls(options.run, {std::istreambuf_iterator<char>(file), {}});
    if (failure) FAIL("DIFFERENCE: " << failure->message);
    std::cout << "no difference\n";
    return;
  }
  std::cout << command_line() << " --seed " << options.run.seed << " --steps " << options.run.steps
            << std::endl;
  const CallsResult result = run_calls(options.run);
  std::cout << result.steps << " calls (" << result.succeeded << " succeeded) on " << result.rounds
            << " mounts, " << result.comparisons << " comparisons, " << result.seconds << " s, "
            << static_cast<uint64_t>(static_cast<double>(result.steps) / result.seconds)
            << " calls/s\n";
  if (!result.failure) {
    std::cout << "no difference\n";
    return;
  }
  const std::string script = result.failure->script();
  std::cout << "DIFFERENCE: " << script;
  if (options.run.threads == 1) {
    std::ofstream(options.script) << script;
    std::cout << "# replay: " << command_line() << " --replay " << options.script << std::endl;
  }
  FAIL_CHECK(result.failure->message);
}

int main(int argc, char** argv) {
  options.run.seed = std::random_device()();
  options.run.steps = 50'000;
  const std::map<std::string, LowerKind> kinds = {{"ext4", LowerKind::ext4},
                                                  {"xfs", LowerKind::xfs},
                                                  {"btrfs", LowerKind::btrfs},
                                                  {"tmpfs", LowerKind::tmpfs}};
  CLI::App app("Random system calls on mounts, compared with a recount.", "mount_model");
  app.add_option("--filesystem", options.run.lower, "What is mounted over")
      ->transform(CLI::CheckedTransformer(kinds));
  app.add_option("--io", options.io, "As the mount option")
      ->check(CLI::IsMember({"direct", "buffered"}));
  app.add_option("--options", options.more_options, "Further mount options");
  app.add_option("--steps", options.run.steps, "How many calls");
  app.add_option("--seed", options.run.seed, "Decides all of them");
  app.add_option("--threads", options.run.threads, "How many threads make them")
      ->check(CLI::Range(1, 256));
  app.add_option("--replay", options.replay, "Makes the calls of this script, instead")
      ->check(CLI::ExistingFile);
  app.add_option("--script", options.script, "Where a failure's script is written");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.run.options = "io=" + options.io;
  if (!options.more_options.empty()) options.run.options += "," + options.more_options;
  return Catch::Session().run(1, argv) == 0 ? 0 : 1;
}
