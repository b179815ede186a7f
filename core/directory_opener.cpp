#include "core/directory_opener.hpp"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "core/unique_fd.hpp"

namespace tally {

namespace {

constexpr int open_flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr int step_flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

/// Whether it failed because the process or the machine has no more descriptors.
bool is_shortage(int result) { return result == -EMFILE || result == -ENFILE; }

int result_of(long fd) { return fd >= 0 ? static_cast<int>(fd) : -errno; }

/// openat(2) of a path of several components, none of which may be a symbolic link.
int open_beneath(int dir_fd, const char* path, int flags) {
  open_how how{};
  how.flags = static_cast<unsigned>(flags);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return result_of(::syscall(SYS_openat2, dir_fd, path, &how, sizeof how));
}

}  // namespace

DirectoryOpener::DirectoryOpener(ScanContext& scan, unsigned queue_depth, std::span<char> path_room)
    : scan_(scan), path_room_(path_room) {
  if (queue_depth == 0) return;
  if (auto ring = Ring::create(queue_depth)) ring_ = std::move(*ring);
}

void DirectoryOpener::open(std::span<const DirIndex> dirs) {
  assert(!dirs.empty() && dirs.size() <= batch_max);
  units_ = scan_.lending.take(static_cast<uint32_t>(dirs.size()));
  dirs = dirs.first(std::max<std::size_t>(units_, 1));
  if (ring_ && dirs.size() > 1) open_by_ring(dirs);
  for (const DirIndex dir : dirs) {
    if (scan_.state(dir).descriptor != ScanState::not_opened) continue;
    const int descriptor = dir == dirs[0] ? open_patiently(dir) : open_alone(dir);
    if (dir != dirs[0] && is_shortage(descriptor)) break;
    opened(dir, descriptor);
  }
  scan_.lending.give_back(std::exchange(units_, 0));
}

void DirectoryOpener::open_by_ring(std::span<const DirIndex> dirs) {
  for (uint32_t i = 0; i < dirs.size(); ++i) {
    const ScanState& parent = scan_.state(scan_.tree.parent(dirs[i]));
    if (!parent.lends) continue;
    const char* name = scan_.names.text(scan_.state(dirs[i]).name);
    if (!ring_->queue_open(parent.descriptor, name, open_flags, i)) break;
  }
  const Status submitted = ring_->submit_and_wait(batch_max);
  collect(dirs);
  // The kernel is short of memory: do without, from now on. The ring closes what it still holds,
  // and whatever it didn't open is opened alone.
  if (!submitted) ring_.reset();
}

void DirectoryOpener::collect(std::span<const DirIndex> dirs) {
  while (const auto done = ring_->next_completion())
    if (!is_shortage(done->result)) opened(dirs[done->slot], done->result);
}

/// As open_alone(), but when there are no descriptors, other workers may close some any moment.
int DirectoryOpener::open_patiently(DirIndex dir) {
  int descriptor = open_alone(dir);
  while (is_shortage(descriptor) && waits_left_ != 0) {
    --waits_left_;
    flush();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    descriptor = open_alone(dir);
  }
  if (descriptor >= 0) waits_left_ = waits_max;
  return descriptor;
}

int DirectoryOpener::open_alone(DirIndex dir) {
  const DirIndex parent = scan_.tree.parent(dir);
  if (!scan_.state(parent).lends) return open_from_root(dir);
  return result_of(::openat(scan_.state(parent).descriptor, scan_.names.text(scan_.state(dir).name),
                            open_flags));
}

int DirectoryOpener::open_from_root(DirIndex dir) {
  const auto path = scan_.path_into(path_room_, dir);
  if (!path) return -path.error().value;
  if (path->empty()) return result_of(::openat(scan_.source_fd, ".", open_flags));
  char* rest = path_room_.data() + (path->data() - path_room_.data());
  std::size_t rest_bytes = path->size();
  UniqueFd step;
  while (rest_bytes >= PATH_MAX) {
    const std::size_t cut = std::string_view(rest, PATH_MAX).rfind('/');
    rest[cut] = '\0';
    step.reset(open_beneath(step ? step.get() : scan_.source_fd, rest, step_flags));
    if (!step) return step.get();
    rest += cut + 1;
    rest_bytes -= cut + 1;
  }
  return open_beneath(step ? step.get() : scan_.source_fd, rest, open_flags);
}

void DirectoryOpener::opened(DirIndex dir, int descriptor) {
  ScanState& state = scan_.state(dir);
  state.descriptor = descriptor;
  state.lends = descriptor >= 0 && units_ != 0;
  if (state.lends) --units_;
  if (const DirIndex parent = scan_.tree.parent(dir)) return_loan(parent);
}

void DirectoryOpener::finish_reading(DirIndex dir) {
  const ScanState& state = scan_.state(dir);
  if (!state.lends) close(state.descriptor);
  return_loan(dir);
  // A batch takes along what the last one left to close. Where no batches come, as in a chain of
  // single directories, nobody would.
  if (ring_ && ring_->outstanding() > batch_max) flush();
}

void DirectoryOpener::return_loan(DirIndex dir) {
  ScanState& state = scan_.state(dir);
  if (state.unopened.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (!state.lends) return;
  close(state.descriptor);
  scan_.lending.give_back();
}

void DirectoryOpener::close(int descriptor) {
  if (!ring_ || !ring_->queue_close(descriptor)) ::close(descriptor);
}

void DirectoryOpener::flush() {
  if (!ring_ || ring_->outstanding() == 0) return;
  const Status closed = ring_->submit_and_wait(0);
  while (ring_->next_completion()) {
  }
  if (!closed) ring_.reset();
}

}  // namespace tally
