#include "core/scanner.hpp"

#include <algorithm>
#include <chrono>

#include "core/descriptor_limit.hpp"

namespace tally {

namespace {

// What threads wait for.
enum Phase : int { waiting, scanning, abandoned };

unsigned worker_count(const ScannerOptions& options) {
  return options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
}

/// The options with what they leave open filled in. Half of what the process may have open is for
/// the scan: what the workers need for themselves, and the rest to lend. Where the former alone is
/// too much the workers do without rings.
ScannerOptions settled(ScannerOptions options) {
  options.threads = worker_count(options);
  if (options.descriptors_max != 0) return options;
  constexpr int64_t enough = 4096;
  const auto left_with = [&](uint32_t descriptors_each) {
    return int64_t{descriptor_limit() / 2} - int64_t{options.threads} * descriptors_each;
  };
  if (left_with(DirectoryOpener::descriptors_each_with_ring) < 1) options.queue_depth = 0;
  const int64_t left =
      left_with(options.queue_depth == 0 ? DirectoryOpener::descriptors_each
                                         : DirectoryOpener::descriptors_each_with_ring);
  options.descriptors_max = static_cast<uint32_t>(std::clamp<int64_t>(left, 1, enough));
  return options;
}

}  // namespace

Scanner::Scanner(DirTree& tree, HardLinks& links, const ScannerOptions& options)
    : Scanner(settled(options), tree, links) {}

Scanner::Scanner(const ScannerOptions& options, DirTree& tree, HardLinks& links)
    : context_(tree, links, options.threads, options.descriptors_max, options.keep_names,
               options.events),
      one_file_system_(options.one_file_system) {
  const unsigned count = options.threads;
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
  if (one_file_system_) context_.only_device = stat->key.dev;
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
