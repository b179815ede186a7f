#include "core/scanner.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>

namespace tally {

namespace {

// What threads wait for.
enum Phase : int { waiting, scanning, abandoned };

unsigned worker_count(const ScannerOptions& options) {
  return options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
}

uint32_t descriptors_max(const ScannerOptions& options) {
  if (options.descriptors_max != 0) return options.descriptors_max;
  constexpr rlim_t enough = 4096;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<uint32_t>(std::min(limit.rlim_cur / 2, enough));
}

}  // namespace

Scanner::Scanner(DirTree& tree, HardLinks& links, const ScannerOptions& options)
    : context_(tree, links, worker_count(options), descriptors_max(options), options.keep_names,
               options.events) {
  const unsigned count = worker_count(options);
  for (unsigned number = 0; number < count; ++number)
    workers_.emplace_back(context_, number, options.queue_depth);
  threads_.reserve(count - 1);
  try {
    for (unsigned number = 1; number < count; ++number)
      threads_.emplace_back([this, number] { start(number); });
  } catch (...) {
    end_threads();
    throw;
  }
}

Scanner::~Scanner() { end_threads(); }

void Scanner::start(unsigned worker_number) {
  phase_.wait(waiting);
  if (phase_ == scanning) workers_[worker_number].run();
}

void Scanner::end_threads() {
  if (phase_ == waiting) phase_ = abandoned;
  phase_.notify_all();
  for (std::thread& thread : threads_)
    thread.join();
  threads_.clear();
}

Result<ScanSummary> Scanner::run(int source_fd) {
  const auto start_time = std::chrono::steady_clock::now();
  const auto stat = stat_fd(source_fd);
  if (!stat) return std::unexpected(stat.error());
  if (!stat->is_directory()) return failure(ENOTDIR);
  const auto root = context_.tree.insert_scanned({}, *stat);
  if (!root) return std::unexpected(root.error());

  context_.source_fd = source_fd;
  context_.enter(*root, {}, *stat);
  ScanChain first;
  first.push_top(context_.states, *root);
  context_.schedule.add(0, first, ScanSchedule::Caller::takes_next);

  phase_ = scanning;
  phase_.notify_all();
  workers_[0].run();
  end_threads();

  if (context_.events != nullptr) context_.events->finish();
  context_.links.fold();
  context_.remove_gone();

  ScanSummary summary;
  for (const ScanWorker& worker : workers_)
    summary.counts += worker.counts();
  for (std::size_t kind = 0; kind < scan_error_kinds; ++kind)
    summary.errors[kind] = context_.errors.counted(static_cast<ScanErrorKind>(kind));
  if (!context_.keep_names) context_.states.discard();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_time;
  summary.seconds = elapsed.count();
  return summary;
}

std::string Scanner::path_of(DirIndex dir) const {
  std::string path;
  for (; const NameRef name = context_.states[dir.value].name; dir = context_.tree.parent(dir)) {
    std::string above = context_.names.text(name);
    if (!path.empty()) above += '/';
    path.insert(0, above);
  }
  return path;
}

}  // namespace tally
