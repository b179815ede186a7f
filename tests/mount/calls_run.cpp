#include "tests/mount/calls_run.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <sstream>
#include <thread>

#include "tests/model/random.hpp"
#include "tests/model/shrink.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"

using namespace std::chrono_literals;

namespace tally::test {

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t steps_per_round = 5'000;
constexpr uint64_t steps_per_comparison = 500;
constexpr std::size_t names_max = 300;  // of one thread
constexpr std::size_t directories_max = 40;
constexpr const char* shared_directories[] = {"one", "two"};
// After this what is wrong is not only late: RELEASE comes after close(2) has returned, and blocks
// move while a filesystem tidies up.
constexpr auto patience = 10s;
constexpr auto patience_in_trials = 1s;
constexpr auto life_max = 600s;

// --- Which calls -----------------------------------------------------------------------------

/// Chooses calls at random, such that most find what they need. Deterministic from the seed and
/// what it sees.
class CallsChooser {
 public:
  CallsChooser(uint64_t seed) : random_(seed) {
    for (const CallForm& form : call_forms())
      total_weight_ += form.weight;
  }

  Operation next(const ModelTree& tree) {
    if (++chosen_ % steps_per_round == steps_per_round / 2) return {.kind = kind_of("drop-caches")};
    uint64_t drawn = random_.below(total_weight_);
    uint8_t kind = 0;
    while (drawn >= call_forms()[kind].weight)
      drawn -= call_forms()[kind++].weight;
    return with_operands(instead_of(kind, tree), tree);
  }

 private:
  static uint8_t kind_of(const std::string& verb) {
    uint8_t kind = 0;
    while (verb != call_forms()[kind].form.verb)
      ++kind;
    return kind;
  }

  /// Trees don't grow for ever.
  static uint8_t instead_of(uint8_t kind, const ModelTree& tree) {
    static const uint8_t unlink = kind_of("unlink");
    static const uint8_t rmdir = kind_of("rmdir");
    const CallForm& form = call_forms()[kind];
    if (!form.makes_first) return kind;
    if (form.form.operands[0] == 'n' && tree.names().size() >= names_max) return unlink;
    if (form.form.operands[0] == 'd' && tree.dirs().size() >= directories_max) return rmdir;
    return kind;
  }

  Operation with_operands(uint8_t kind, const ModelTree& tree) {
    const CallForm& form = call_forms()[kind];
    Operation operation{.kind = kind, .operands = {}};
    std::size_t numbers = 0;
    for (std::size_t i = 0; form.form.operands[i] != '\0'; ++i) {
      const char letter = form.form.operands[i];
      if (letter == '#') {
        operation.operands[i] = random_.below(form.limits[numbers++]);
      } else if (i == 0 && form.makes_first) {
        operation.operands[i] = letter == 'n'   ? tree.fresh_name()
                                : letter == 'd' ? tree.fresh_dir()
                                                : tree.fresh_handle();
      } else {
        operation.operands[i] = any(letter == 'n'   ? tree.names()
                                    : letter == 'd' ? tree.dirs()
                                                    : tree.handles());
      }
    }
    return operation;
  }

  uint32_t any(const NumberSet& set) {
    return set.empty() ? 0 : set.numbers()[random_.below(set.size())];
  }

  Random random_;
  uint64_t total_weight_ = 0;
  uint64_t chosen_ = 0;
};

// --- One mount and its callers ---------------------------------------------------------------

/// A mount over an empty directory, and the threads' calls on it.
class Playground {
 public:
  Playground(const CallsRun& run, const std::string& lower_path) : run_(run), folders_(lower_path) {
    mount(true);
    std::vector<std::string> shared;
    if (run.threads > 1)
      shared.assign(std::begin(shared_directories), std::end(shared_directories));
    for (const std::string& leaf : shared)
      std::filesystem::create_directory(mount_->at(leaf));
    for (unsigned i = 0; i < run.threads; ++i) {
      callers_.push_back(std::make_unique<SystemCalls>(
          SystemCalls::Place{.directory = mount_->at(),
                             .lower = folders_.source(),
                             .prefix = run.threads > 1 ? "t" + std::to_string(i) : "",
                             .shared = shared,
                             .fault = run.fault}));
    }
    if (run.threads == 1)
      callers_[0]->set_remount([this] {
        mount_.reset();
        sync_filesystem(folders_.source());
        mount(false);
      });
  }

  ~Playground() { close_all(); }

  SystemCalls& caller(unsigned thread) { return *callers_[thread]; }

  void close_all() {
    for (const auto& caller : callers_)
      caller->close_all();
  }

  /// While no thread is at work. Empty if all is right.
  std::string compare(Clock::duration how_long) {
    const auto deadline = Clock::now() + how_long;
    if (std::string state = wait_until_exact(deadline); !state.empty()) return state;
    std::vector<std::string> wrong = wrong_counters(*mount_, Compare::exact_parts);
    if (!wrong.empty()) return wrong.front();
    for (;;) {
      sync_filesystem(folders_.source());
      look_at_all();
      wrong = wrong_counters(*mount_, Compare::everything);
      if (std::string orphans = wrong_orphans(); !orphans.empty()) wrong.push_back(orphans);
      if (wrong.empty()) return {};
      if (Clock::now() > deadline) return wrong.front();
      std::this_thread::sleep_for(100ms);
    }
  }

 private:
  void mount(bool wait_for_scan) {
    Mount::Settings settings;
    settings.options = run_.options;
    settings.life_max = life_max;
    settings.wait_for_scan = wait_for_scan;
    mount_ = std::make_unique<Mount>(folders_, settings);
  }

  /// Calls may have been made while the scan was still going on.
  std::string wait_until_exact(Clock::time_point deadline) const {
    for (;;) {
      const auto state = read_xattr(mount_->at(), "user.tally.state");
      const std::string text = state ? *state : state.error().message();
      if (text == "exact") return {};
      if (Clock::now() > deadline) return "the state is " + text;
      std::this_thread::sleep_for(5ms);
    }
  }

  /// The mount accounts what it sees of blocks that came late.
  void look_at_all() const {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(mount_->at(), ignored)) {
      struct statx stx{};
      ::statx(AT_FDCWD, entry.path().c_str(), AT_STATX_FORCE_SYNC | AT_SYMLINK_NOFOLLOW,
              STATX_BASIC_STATS, &stx);
    }
  }

  [[nodiscard]] std::string wrong_orphans() const {
    int64_t bytes = 0;
    for (const auto& caller : callers_)
      bytes += caller->orphan_bytes();
    const auto shown = read_xattr(mount_->at(), "user.tally.orphan_bytes");
    const std::string text = shown ? *shown : shown.error().message();
    if (text == std::to_string(bytes)) return {};
    return "orphan_bytes is " + text + ", should be " + std::to_string(bytes);
  }

  const CallsRun& run_;
  const MountFolders folders_;
  std::unique_ptr<Mount> mount_;
  std::vector<std::unique_ptr<SystemCalls>> callers_;
};

/// What is wrong after the calls, on a fresh mount.
std::string wrong_after(const std::vector<Operation>& operations, const CallsRun& run,
                        const std::string& lower_path, Clock::duration how_long) {
  Playground playground(run, lower_path);
  for (const Operation& operation : operations)
    playground.caller(0).apply(operation);
  return playground.compare(how_long);
}

CallsFailure shrunk(CallsFailure failure, const CallsRun& run, const std::string& lower_path) {
  failure.operations_found = failure.operations.size();
  const auto deadline = Clock::now() + run.shrink_limit;
  const auto fails = [&](const std::vector<Operation>& some) {
    return Clock::now() < deadline &&
           !wrong_after(some, run, lower_path, patience_in_trials).empty();
  };
  failure.operations = shrink(std::move(failure.operations), call_vocabulary(), fails);
  const std::string again = wrong_after(failure.operations, run, lower_path, patience);
  if (again.empty()) {
    failure.message += " (not found again)";
  } else {
    failure.message = again;
  }
  return failure;
}

/// The calls of one thread until its share is done; what it did is kept if it is the only one.
void make_calls(SystemCalls& caller, CallsChooser& chooser, uint64_t count, uint64_t& succeeded,
                std::vector<Operation>* done) {
  for (uint64_t i = 0; i < count; ++i) {
    const Operation operation = chooser.next(caller.tree());
    if (done != nullptr) done->push_back(operation);
    succeeded += caller.apply(operation) ? 1 : 0;
  }
}

void run_round(const CallsRun& run, const std::string& lower_path, uint64_t steps,
               CallsResult& result) {
  auto playground = std::make_unique<Playground>(run, lower_path);
  std::vector<CallsChooser> choosers;
  for (unsigned i = 0; i < run.threads; ++i)
    choosers.emplace_back(run.seed + (result.rounds * run.threads + i) * 0x9e3779b9);
  CallsFailure failure{.round = result.rounds, .operations = {}, .message = {}};
  for (uint64_t done = 0; done < steps && failure.message.empty();) {
    const uint64_t each =
        (std::min(steps - done, steps_per_comparison) + run.threads - 1) / run.threads;
    std::vector<uint64_t> succeeded(run.threads);
    const auto work = [&](unsigned thread) {
      make_calls(playground->caller(thread), choosers[thread], each, succeeded[thread],
                 run.threads == 1 ? &failure.operations : nullptr);
    };
    {
      std::vector<std::jthread> others;
      for (unsigned i = 1; i < run.threads; ++i)
        others.emplace_back(work, i);
      work(0);  // here: a daemon dies with the thread that started it, as `remount` does
    }
    for (const uint64_t count : succeeded)
      result.succeeded += count;
    done += each * run.threads;
    result.steps += each * run.threads;
    ++result.comparisons;
    failure.message = playground->compare(patience);
  }
  ++result.rounds;
  playground.reset();
  if (failure.message.empty()) return;
  result.failure =
      run.threads == 1 ? shrunk(std::move(failure), run, lower_path) : std::move(failure);
}

}  // namespace

std::string CallsFailure::script() const {
  std::ostringstream text;
  text << "# " << message << "\n# found in round " << round << " after " << operations_found
       << " calls\n"
       << text_of(operations, call_vocabulary());
  return text.str();
}

CallsResult run_calls(const CallsRun& run) {
  const LowerFilesystem lower(run.lower);
  const auto start = Clock::now();
  CallsResult result;
  while (result.steps < run.steps && !result.failure)
    run_round(run, lower.path(), std::min(steps_per_round, run.steps - result.steps), result);
  result.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return result;
}

std::optional<CallsFailure> replay_calls(const CallsRun& run, const std::string& script) {
  CallsFailure failure;
  failure.operations = parse_script(script, call_vocabulary());
  failure.operations_found = failure.operations.size();
  const LowerFilesystem lower(run.lower);
  failure.message = wrong_after(failure.operations, run, lower.path(), patience);
  if (failure.message.empty()) return std::nullopt;
  return failure;
}

}  // namespace tally::test
