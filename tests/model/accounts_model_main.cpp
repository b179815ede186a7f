// accounts_model: random operations on the accounts alone, each compared with a recount.
//
//     command line ─ rounds in threads ─ the first failure ─ shrunk to a script ─ exit status
//
// Status 0: no difference; 1: one, with its script; 2: usage.

#include <fstream>
#include <iostream>
#include <iterator>
#include <random>

#include <CLI/CLI.hpp>

#include "tests/model/accounts_run.hpp"

using namespace tally::test;

namespace {

struct Options {
  AccountsRun run;
  bool one_tree = false;
  std::string replay;
  std::string script = "accounts_model.script";
};

int report(const AccountsFailure& failure, const Options& options) {
  std::cout << "DIFFERENCE: " << failure.message << '\n';
  if (options.one_tree) {
    std::cout << "in tree " << failure.round << "; it hangs on the schedule of the threads\n";
    return 1;
  }
  const std::string script = failure.script();
  std::cout << script;
  std::ofstream(options.script) << script;
  std::cout << "# replay: accounts_model --replay " << options.script << '\n';
  return 1;
}

int replay(const Options& options) {
  std::ifstream file(options.replay);
  const std::string script{std::istreambuf_iterator<char>(file), {}};
  const auto failure = replay_accounts(script, options.run.fault);
  if (failure) {
    std::cout << "DIFFERENCE: " << failure->message << ", after:\n" << failure->script();
    return 1;
  }
  std::cout << "no difference\n";
  return 0;
}

int run(const Options& options) {
  if (!options.replay.empty()) return replay(options);
  std::cout << "accounts_model --seed " << options.run.seed << " --steps " << options.run.steps
            << " --threads " << options.run.threads << (options.one_tree ? " --one-tree" : "")
            << std::endl;
  const AccountsResult result =
      options.one_tree ? run_accounts_on_one_tree(options.run) : run_accounts(options.run);
  const double rate = static_cast<double>(result.steps) / result.seconds;
  std::cout << result.steps << " steps (" << result.effective_steps << " did something) in "
            << result.rounds << " trees, " << result.recounts << " recounts, " << result.seconds
            << " s, " << static_cast<uint64_t>(rate) << " steps/s, "
            << static_cast<uint64_t>(rate / options.run.threads) << " per thread\n";
  if (result.failure) return report(*result.failure, options);
  std::cout << "no difference\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  options.run = {.seed = std::random_device()(), .steps = 1'000'000};
  CLI::App app("Random operations on the accounts, compared with a recount.", "accounts_model");
  app.add_option("--steps", options.run.steps, "How many operations")->capture_default_str();
  app.add_option("--seed", options.run.seed, "Decides all of them");
  app.add_option("--threads", options.run.threads, "How many threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_flag("--one-tree", options.one_tree, "All threads work on one tree");
  app.add_option("--replay", options.replay, "Does what this script says, instead")
      ->check(CLI::ExistingFile);
  app.add_option("--script", options.script, "Where a failure's script is written")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    return run(options);
  } catch (const std::invalid_argument& error) {
    std::cerr << "accounts_model: " << error.what() << '\n';
    return 2;
  }
}
