#include "tests/model/accounts_run.hpp"

#include <atomic>
#include <barrier>
#include <chrono>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "tests/model/accounts_check.hpp"
#include "tests/model/accounts_chooser.hpp"
#include "tests/model/shrink.hpp"

namespace tally::test {

namespace {

constexpr uint64_t steps_per_round = 4'000;
// Shrinking a failure takes a recount after each operation of each trial.
constexpr unsigned shrink_trials_max = 20'000;

struct Round {
  uint64_t seed;
  ModelRoom room;
  AccountsChooser::Limits limits;
  uint64_t steps_per_recount;
};

/// Mostly small trees, in which much happens to the same things and a recount costs next to
/// nothing; larger ones for what takes many directories, names or levels.
Round round_of(uint64_t seed, uint64_t number) {
  Random dice(seed ^ (number * 0x2545f4914f6cdd1d));
  Round round{.seed = dice.next(), .room = {}, .limits = {}, .steps_per_recount = 1};
  round.limits.removals_behind = dice.below(4) == 0;
  round.limits.changes_behind = dice.below(4) == 0;
  round.limits.future_times = dice.below(4) == 0;
  round.limits.scans = dice.below(2) == 0;
  switch (dice.below(10)) {
    case 0:
      round.limits.names = 1000;
      round.limits.dirs = 200;
      round.steps_per_recount = 40;
      break;
    case 1:
    case 2:
      round.limits.names = 150;
      round.limits.dirs = 50;
      round.steps_per_recount = 4;
      break;
    case 3:
      // Room is short, so that pools are full now and then.
      round.room = {.dirs = 10, .links = 1 + dice.below(6)};
      round.limits.scans = false;
      round.limits.changes_behind = false;
      break;
    default:
      round.limits.names = 10 + dice.below(30);
      round.limits.dirs = 3 + dice.below(12);
  }
  return round;
}

/// What is wrong when the operations were done one after the other, each followed by a recount, and
/// after how many of them.
struct Wrong {
  std::string message;
  std::size_t operations;
};
std::optional<Wrong> first_wrong(const std::vector<Operation>& operations, const ModelRoom& room,
                                 Fault fault) {
  AccountsModel model(room, fault);
  for (std::size_t i = 0; i < operations.size(); ++i) {
    model.apply(operations[i]);
    std::string message = model.check_touched();
    if (message.empty()) message = model.difference();
    if (!message.empty()) return Wrong{.message = std::move(message), .operations = i + 1};
  }
  std::string message = model.remove_everything();
  if (message.empty()) return std::nullopt;
  return Wrong{.message = std::move(message), .operations = operations.size()};
}

AccountsFailure shrunk(std::vector<Operation> operations, std::string message, const Round& round,
                       uint64_t number, Fault fault) {
  AccountsFailure failure{.room = round.room,
                          .round = number,
                          .operations = std::move(operations),
                          .message = std::move(message)};
  failure.operations_found = failure.operations.size();
  const auto fails = [&](const std::vector<Operation>& some) {
    return first_wrong(some, round.room, fault).has_value();
  };
  if (const auto wrong = first_wrong(failure.operations, round.room, fault)) {
    failure.operations.resize(wrong->operations);
    failure.operations =
        shrink(std::move(failure.operations), accounts_vocabulary, fails, shrink_trials_max);
    failure.message = first_wrong(failure.operations, round.room, fault)->message;
  } else {
    failure.message += " (not found again with a recount after each operation)";
  }
  return failure;
}

std::optional<AccountsFailure> run_round(const Round& round, uint64_t number, uint64_t steps,
                                         Fault fault, AccountsResult& sum) {
  AccountsModel model(round.room, fault);
  AccountsChooser chooser(round.seed, round.limits);
  std::vector<Operation> done;
  done.reserve(steps);
  std::string message;
  while (done.size() < steps && message.empty()) {
    done.push_back(chooser.next(model.tree()));
    sum.effective_steps += model.apply(done.back()) ? 1 : 0;
    message = model.check_touched();
    if (!message.empty() || done.size() % round.steps_per_recount != 0) continue;
    message = model.difference();
    ++sum.recounts;
  }
  if (message.empty()) message = model.difference();
  if (message.empty()) message = model.remove_everything();
  sum.recounts += 2;
  sum.steps += done.size();
  ++sum.rounds;
  if (message.empty()) return std::nullopt;
  return shrunk(std::move(done), std::move(message), round, number, fault);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Runs `work(thread)` on so many threads, one of them the caller's.
template <class Work>
void in_threads(unsigned threads, Work work) {
  std::vector<std::jthread> others;
  for (unsigned i = 1; i < threads; ++i)
    others.emplace_back([&work, i] { work(i); });
  work(0);
}

}  // namespace

std::string AccountsFailure::script() const {
  std::ostringstream text;
  text << "# " << message << "\n# found in round " << round << " after " << operations_found
       << " operations\nroom " << room.dirs << ' ' << room.links << '\n'
       << text_of(operations, accounts_vocabulary);
  return text.str();
}

AccountsResult run_accounts(const AccountsRun& run) {
  const auto start = std::chrono::steady_clock::now();
  AccountsResult result;
  std::mutex mutex;
  std::atomic<uint64_t> next_round = 0;
  std::atomic<bool> has_failed = false;
  in_threads(run.threads, [&](unsigned) {
    AccountsResult sum;
    while (!has_failed) {
      const uint64_t number = next_round++;
      const uint64_t first_step = number * steps_per_round;
      if (first_step >= run.steps) break;
      const uint64_t steps = std::min(steps_per_round, run.steps - first_step);
      auto failure = run_round(round_of(run.seed, number), number, steps, run.fault, sum);
      if (!failure) continue;
      has_failed = true;
      const std::lock_guard lock(mutex);
      // Of several, the one that any number of threads would find first.
      if (!result.failure || number < result.failure->round) result.failure = std::move(failure);
    }
    const std::lock_guard lock(mutex);
    result.steps += sum.steps;
    result.effective_steps += sum.effective_steps;
    result.rounds += sum.rounds;
    result.recounts += sum.recounts;
  });
  result.seconds = seconds_since(start);
  return result;
}

std::optional<AccountsFailure> replay_accounts(const std::string& script, Fault fault) {
  AccountsFailure failure;
  // The line on room comes before the first operation; comments may come before it.
  std::istringstream lines(script);
  std::string rest;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string verb;
    if (words >> verb && verb == "room") {
      if (!(words >> failure.room.dirs >> failure.room.links) || failure.room.dirs == 0 ||
          failure.room.links == 0)
        throw std::invalid_argument("room needs two numbers above 0: " + line);
    } else {
      rest += line + '\n';
    }
  }
  failure.operations = parse_script(rest, accounts_vocabulary);
  failure.operations_found = failure.operations.size();
  const auto wrong = first_wrong(failure.operations, failure.room, fault);
  if (!wrong) return std::nullopt;
  failure.operations.resize(wrong->operations);
  failure.message = wrong->message;
  return failure;
}

}  // namespace tally::test
