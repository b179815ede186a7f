#include "core/scan_context.hpp"

#include <cstring>
#include <thread>
#include <utility>

namespace tally {

namespace {

/// Room for the longest name in each directory, as far as references reach.
std::size_t names_capacity_bytes(const DirTree& tree) {
  constexpr std::size_t name_max_bytes = 256;
  return tree.capacity() * name_max_bytes + (std::size_t{1} << 20);
}

}  // namespace

ScanContext::ScanContext(DirTree& dir_tree, HardLinks& hard_links, unsigned worker_count,
                         uint32_t descriptors_max, bool names_stay, ScanEvents* event_stream)
    : tree(dir_tree),
      links(hard_links),
      states(std::size_t{dir_tree.index_max()} + 1),
      names(names_capacity_bytes(dir_tree)),
      schedule(states, worker_count),
      lending(descriptors_max),
      keep_names(names_stay),
      events(event_stream) {}

void ScanContext::enter(DirIndex dir, NameRef name, const FileStat& stat, bool is_mount_root) {
  ScanState& fresh = state(dir);
  fresh.name = name;
  fresh.descriptor = ScanState::not_opened;
  fresh.unopened.store(1, std::memory_order_relaxed);
  fresh.incomplete.store(1, std::memory_order_relaxed);
  fresh.mounted.store(is_mount_root ? ScanState::Mounted::anew : ScanState::Mounted::like_parent,
                      std::memory_order_release);
  if (events == nullptr) return;
  events->push({.kind = ScanEvent::Kind::enter,
                .dir = dir,
                .parent = tree.parent(dir),
                .name = keep_names ? name : NameRef{},
                .stat = stat});
}

DirIndex ScanContext::mount_root_of(DirIndex dir) const {
  while (true) {
    const ScanState::Mounted mounted = state(dir).mounted.load(std::memory_order_acquire);
    if (mounted == ScanState::Mounted::unknown) {
      // Found in the tree a moment before the worker that put it there has called enter().
      std::this_thread::yield();
      continue;
    }
    const DirIndex parent = tree.parent(dir);
    if (mounted == ScanState::Mounted::anew || !parent) return dir;
    dir = parent;
  }
}

void ScanContext::leave(DirIndex dir) {
  if (events != nullptr) events->push({.kind = ScanEvent::Kind::leave, .dir = dir});
  ScanState& left = state(dir);
  if (left.name && !keep_names) names.release(std::exchange(left.name, {}));
  if (!left.gone) return;
  MutexLock lock(gone_mutex);
  gone.push_top(states, dir);
}

void ScanContext::remove_gone() {
  MutexLock lock(gone_mutex);
  for (DirIndex dir = gone.bottom; dir; dir = {state(dir).above}) {
    if (tree.node(dir).first_child != 0 || !tree.parent(dir)) {
      // Something moved out of it while it was removed: not there, and yet not empty.
      tree.mark_suspect(dir);
      continue;
    }
    links.remove_directory(dir);
  }
}

Result<std::string_view> ScanContext::path_into(std::span<char> room, DirIndex dir,
                                                std::string_view leaf) const {
  std::size_t start = room.size() - 1;
  room[start] = '\0';
  const auto prepend = [&](std::string_view name) {
    const bool is_last = start == room.size() - 1;
    if (name.size() + 1 > start) return false;
    if (!is_last) room[--start] = '/';
    start -= name.size();
    std::memcpy(&room[start], name.data(), name.size());
    return true;
  };
  if (!leaf.empty() && !prepend(leaf)) return failure(ENAMETOOLONG);
  for (; const NameRef name = states[dir.value].name; dir = tree.parent(dir))
    if (!prepend(names.text(name))) return failure(ENAMETOOLONG);
  return std::string_view(&room[start], room.size() - 1 - start);
}

}  // namespace tally
