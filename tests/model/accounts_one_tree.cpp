// Threads that work on one tree at the same time.

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <memory>
#include <thread>

#include "tests/model/accounts_check.hpp"
#include "tests/model/accounts_chooser.hpp"
#include "tests/model/accounts_run.hpp"

namespace tally::test {

namespace {

constexpr uint64_t steps_between_comparisons = 5'000;
constexpr uint64_t inos_per_thread = uint64_t{1} << 40;
// So that numbers, which never repeat, don't fill the memory in a long run.
constexpr uint64_t steps_per_tree = 500'000;

/// The parents of the shared directories: a root with two below it, one of them over two more.
constexpr uint32_t shared_parents[] = {ModelTree::none, 0, 0, 1, 3};

std::vector<AccountsModel::SharedDir> make_shared(Accounts& accounts) {
  std::vector<AccountsModel::SharedDir> shared;
  for (const uint32_t parent : shared_parents) {
    const FileStat stat = {.key = {.ino = 1 + shared.size(), .dev = 1},
                           .mode = S_IFDIR | 0755,
                           .nlink = 2,
                           .ctime_ns = 1};
    const DirIndex index = parent == ModelTree::none
                               ? accounts.tree().insert({}, stat).value()
                               : accounts.dir_created(shared[parent].index, stat).value();
    shared.push_back({.index = index, .parent = parent});
  }
  return shared;
}

/// One tree and its threads, until enough steps are done.
class OneTree {
 public:
  OneTree(const AccountsRun& run, uint64_t seed)
      : accounts_(ModelRoom().dirs * run.threads, ModelRoom().links * run.threads),
        quiet_(static_cast<std::ptrdiff_t>(run.threads), Compare{this}) {
    const auto shared = make_shared(accounts_);
    for (unsigned i = 0; i < run.threads; ++i) {
      models_.push_back(
          std::make_unique<AccountsModel>(accounts_, shared, inos_per_thread * (i + 1)));
      trees_.push_back(&models_.back()->tree());
      choosers_.emplace_back(seed * run.threads + i,
                             AccountsChooser::Limits{.names = 300, .dirs = 60});
    }
  }

  void work(unsigned thread, uint64_t steps) {
    AccountsModel& model = *models_[thread];
    for (uint64_t step = 1; step <= steps; ++step) {
      if (model.apply(choosers_[thread].next(model.tree()))) ++effective_steps_;
      if (std::string wrong = model.check_touched(); !wrong.empty()) fail(std::move(wrong));
      if (step % steps_between_comparisons == 0) quiet_.arrive_and_wait();
      if (has_failed_) break;
    }
    quiet_.arrive_and_drop();
  }

  [[nodiscard]] const std::string& wrong() const { return wrong_; }
  [[nodiscard]] uint64_t effective_steps() const { return effective_steps_; }
  [[nodiscard]] uint64_t recounts() const { return recounts_; }

 private:
  struct Compare {
    OneTree* tree;
    void operator()() noexcept { tree->compare(); }
  };

  void fail(std::string wrong) {
    if (!has_failed_.exchange(true)) wrong_ = std::move(wrong);
  }

  /// No thread is at work.
  void compare() {
    TimeNs latest_ns = 0;
    for (const auto& model : models_)
      latest_ns = std::max(latest_ns, model->latest_ns());
    std::string found =
        first_difference(accounts_, trees_, {.strictness = {}, .latest_ns = latest_ns});
    ++recounts_;
    if (!found.empty()) fail(std::move(found));
  }

  Accounts accounts_;
  std::vector<std::unique_ptr<AccountsModel>> models_;
  std::vector<ModelTree*> trees_;
  std::vector<AccountsChooser> choosers_;
  std::barrier<Compare> quiet_;
  std::atomic<uint64_t> effective_steps_ = 0;
  std::atomic<bool> has_failed_ = false;
  std::string wrong_;
  uint64_t recounts_ = 0;
};

}  // namespace

AccountsResult run_accounts_on_one_tree(const AccountsRun& run) {
  const auto start = std::chrono::steady_clock::now();
  AccountsResult result;
  while (result.steps < run.steps && !result.failure) {
    const uint64_t steps = std::min(steps_per_tree, run.steps - result.steps);
    const uint64_t steps_each = (steps + run.threads - 1) / run.threads;
    OneTree tree(run, run.seed + result.rounds);
    {
      std::vector<std::jthread> threads;
      for (unsigned i = 0; i < run.threads; ++i)
        threads.emplace_back([&tree, i, steps_each] { tree.work(i, steps_each); });
    }
    result.steps += steps_each * run.threads;
    result.effective_steps += tree.effective_steps();
    result.recounts += tree.recounts();
    if (!tree.wrong().empty()) {
      result.failure.emplace();
      result.failure->round = result.rounds;
      result.failure->message = tree.wrong();
    }
    ++result.rounds;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace tally::test
