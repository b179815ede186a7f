#include "core/dir_tree.hpp"

#include <algorithm>
#include <cassert>
#include <ctime>
#include <type_traits>

namespace tally {

namespace {

void raise_to(std::atomic<int64_t>& newest, TimeNs candidate) {
  TimeNs seen = newest.load();
  while (seen < candidate && !newest.compare_exchange_weak(seen, candidate)) {
  }
}

/// A counter as the signed number that it is: below 0 after an underflow.
template <class Counter>
int64_t signed_count(Counter count) {
  return static_cast<std::make_signed_t<Counter>>(count);
}

uint32_t depth_of(const DirTree& tree, DirIndex dir) {
  uint32_t depth = 0;
  for (; dir; dir = tree.parent(dir))
    ++depth;
  return depth;
}

}  // namespace

TimeNs now_ns() {
  timespec now;
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

TimeNs clamp_to_now(TimeNs ctime_ns) { return std::min(ctime_ns, now_ns()); }

Delta& Delta::operator+=(const Delta& other) {
  bytes += other.bytes;
  disk += other.disk;
  unique += other.unique;
  files += other.files;
  subdirs += other.subdirs;
  link_names += other.link_names;
  return *this;
}

Delta Delta::operator-() const {
  return {.bytes = -bytes,
          .disk = -disk,
          .unique = -unique,
          .files = -files,
          .subdirs = -subdirs,
          .link_names = -link_names};
}

DirTree::DirTree(uint32_t capacity, StaleList* stale)
    : capacity_(capacity),
      pool_(capacity + removed_max),
      keys_(capacity + removed_max),
      stale_(stale) {}

DirectoryRoom::~DirectoryRoom() {
  if (tree_ != nullptr) tree_->reserved_.fetch_sub(1);
}

DirectoryRoom DirTree::reserve() {
  // Reserved first, counted then: an insertion under way is counted before its room is given back,
  // so that it may be seen twice and is never missed.
  const uint64_t reserved = reserved_.fetch_add(1);
  DirectoryRoom room(*this);
  const bool has_room = size() + reserved < capacity_ && pool_.size() + reserved < pool_.capacity();
  return has_room ? std::move(room) : DirectoryRoom();
}

Result<DirIndex> DirTree::make_node(const FileStat& stat) {
  const bool has_room = size_.fetch_add(1) < capacity_;
  auto made = has_room ? take_node(stat) : failure(ENOSPC);
  if (!made) size_.fetch_sub(1);
  return made;
}

Result<DirIndex> DirTree::take_node(const FileStat& stat) {
  auto acquired = pool_.acquire();
  if (!acquired) return acquired;
  DirNode& fresh = pool_[*acquired];
  fresh.own_blocks = static_cast<uint32_t>(stat.blocks.count);
  fresh.own_ctime_low = static_cast<uint32_t>(stat.ctime_ns);
  fresh.disk_blocks = stat.blocks.count;
  fresh.unique_blocks = stat.blocks.count;
  fresh.rctime_ns = clamp_to_now(stat.ctime_ns);
  if (keys_.insert(stat.key, acquired->value) != acquired->value) {
    (void)pool_.release(*acquired);
    return failure(EEXIST);
  }
  return acquired;
}

Result<DirIndex> DirTree::insert(DirIndex parent, const FileStat& stat, Content content) {
  WriterLock lock(lock_);
  if (parent && !is_attached(parent)) return failure(ESTALE);
  auto inserted = insert_scanned(parent, stat);
  if (!inserted) return inserted;
  node(*inserted).holders = 1;
  apply_upwards(parent, {}, totals(*inserted), clamp_to_now(stat.ctime_ns));
  if (content == Content::unknown) suspect_upwards(*inserted);
  return inserted;
}

Result<DirIndex> DirTree::insert_scanned(DirIndex parent, const FileStat& stat) {
  auto made = make_node(stat);
  if (!made) return made;
  if (parent) {
    link_child(parent, *made);
  } else {
    assert(!root_);
    root_ = *made;
  }
  return made;
}

void DirTree::link_child(DirIndex parent, DirIndex dir) {
  DirNode& above = node(parent);
  DirNode& child = node(dir);
  child.parent = parent.value;
  child.previous_sibling = 0;
  child.next_sibling = above.first_child;
  if (above.first_child != 0) node({above.first_child}).previous_sibling = dir.value;
  above.first_child = dir.value;
  above.subdirs.fetch_add(1);
}

void DirTree::unlink_child(DirIndex parent, DirIndex dir) {
  DirNode& child = node(dir);
  if (child.previous_sibling != 0) {
    node({child.previous_sibling}).next_sibling = child.next_sibling;
  } else {
    assert(node(parent).first_child == dir.value);
    node(parent).first_child = child.next_sibling;
  }
  if (child.next_sibling != 0) node({child.next_sibling}).previous_sibling = child.previous_sibling;
  add_checked(parent, node(parent).subdirs, -1);
}

void DirTree::relink(DirIndex dir, DirIndex new_parent) {
  // At no moment without a parent: that is read without the lock, too.
  unlink_child(parent(dir), dir);
  link_child(new_parent, dir);
  node(dir).flags.fetch_and(static_cast<uint8_t>(~unseen));
  if (has_suspects(dir)) doubt_upwards(new_parent);
}

Delta DirTree::totals(DirIndex dir) const {
  const DirNode& n = node(dir);
  return {.bytes = {n.bytes},
          .disk = {n.disk_blocks},
          .unique = {n.unique_blocks},
          .files = n.rfiles,
          .subdirs = n.rsubdirs + 1,
          .link_names = n.link_names};
}

Delta DirTree::own_totals(DirIndex dir, int64_t linked_names) const {
  const DirNode& n = node(dir);
  const Blocks blocks = {n.file_blocks + int64_t{n.own_blocks}};
  return {.bytes = {n.file_bytes},
          .disk = blocks,
          .unique = blocks,
          .files = signed_count(n.files.load()) - linked_names,
          .subdirs = 1,
          .link_names = 0};
}

void DirTree::remove(DirIndex dir) {
  assert(node(dir).first_child == 0);
  const DirIndex above = parent(dir);
  unlink_child(above, dir);
  node(dir).parent = 0;
  apply_upwards(above, {}, -totals(dir), 0);
  keys_.erase(keys_.key_of(dir.value), dir.value);
  size_.fetch_sub(1);
  if (node(dir).holders == 0) give_back(dir);
}

DirIndex DirTree::hold(const FileKey& key) {
  // An inode number that is used again and again, behind our back, may make many holders of one
  // node; far from an overflow the directory is rather not known.
  constexpr uint16_t holders_max = 1 << 15;
  ReaderLock lock(lock_);
  const DirIndex dir = find(key);
  if (!dir || node(dir).holders >= holders_max) return {};
  node(dir).holders.fetch_add(1);
  return dir;
}

void DirTree::release(DirIndex dir) {
  // Removed directories get no new holders, and none is removed while this lock is held: so either
  // the last holder gives the node back, or remove() does.
  ReaderLock lock(lock_);
  [[maybe_unused]] const uint16_t before = node(dir).holders.fetch_sub(1);
  assert(before != 0);
  if (before == 1 && !is_attached(dir)) give_back(dir);
}

/// The node of a removed directory is free for another one. Not if files were in it when it was
/// removed, or were taken out of it, which then went behind our back: their records may still name
/// it. Such a node is lost.
void DirTree::give_back(DirIndex dir) {
  if (node(dir).files != 0 || has_flag(dir, has_lost)) return;
  [[maybe_unused]] const Status released = pool_.release(dir);
  assert(released);
}

/// False if the counter is below 0 now.
template <class Counter>
bool DirTree::add_signed(std::atomic<Counter>& counter, int64_t amount) {
  if (amount == 0) return true;
  return wrapping_sum(signed_count(counter.fetch_add(static_cast<Counter>(amount))), amount) >= 0;
}

/// What is below 0 is a matter of doubt, unless doubt there is: of what was not counted yet more
/// may go than came.
template <class Counter>
void DirTree::add_checked(DirIndex dir, std::atomic<Counter>& counter, int64_t amount) {
  if (!add_signed(counter, amount) && !has_flag(dir, doubt_own | doubt_below | recounting))
    suspect_upwards(dir);
}

void DirTree::add(DirIndex dir, const Delta& delta, TimeNs ctime_ns) {
  DirNode& n = node(dir);
  add_checked(dir, n.bytes, delta.bytes.count);
  add_checked(dir, n.disk_blocks, delta.disk.count);
  add_checked(dir, n.unique_blocks, delta.unique.count);
  add_checked(dir, n.rfiles, delta.files);
  add_checked(dir, n.rsubdirs, delta.subdirs);
  add_checked(dir, n.link_names, delta.link_names);
  raise_to(n.rctime_ns, ctime_ns);
  n.rgen.fetch_add(1);
  if (delta.bytes.count == 0) return;
  // All of these are sequentially consistent, as are watch() and counters(): either this sees the
  // watcher, or whoever reads the counters after setting it sees this change.
  if (n.watcher.load() == 0 || stale_ == nullptr) return;
  uint64_t watcher = n.watcher.exchange(0);
  if (watcher == 0 || stale_->push(watcher)) return;
  uint64_t unwatched = 0;
  n.watcher.compare_exchange_strong(unwatched, watcher);
}

void DirTree::apply_upwards(DirIndex dir, DirIndex end, const Delta& delta, TimeNs ctime_ns) {
  for (; dir != end; dir = parent(dir))
    add(dir, delta, ctime_ns);
}

void DirTree::apply(DirIndex dir, const Delta& delta, TimeNs ctime_ns) {
  const TimeNs clamped_ns = clamp_to_now(ctime_ns);
  ReaderLock lock(lock_);
  // The record of a file that moved behind our back may name a directory that has gone since.
  if (!is_attached(dir)) return;
  apply_upwards(dir, {}, delta, clamped_ns);
}

bool DirTree::apply_file(FilePlace place, const Delta& delta, TimeNs ctime_ns, int64_t entries) {
  const TimeNs clamped_ns = clamp_to_now(ctime_ns);
  ReaderLock lock(lock_);
  if (is_stale(place)) return false;
  add_entries(place.dir, entries);
  add_file(place, delta);
  apply_upwards(place.dir, {}, delta, clamped_ns);
  return true;
}

bool DirTree::transfer(FilePlace from, FilePlace to, const Delta& delta, TimeNs ctime_ns) {
  const TimeNs clamped_ns = clamp_to_now(ctime_ns);
  ReaderLock lock(lock_);
  if (is_stale(from)) return false;
  const DirIndex common = lowest_common_ancestor(from.dir, to.dir);
  add_entries(from.dir, -1);
  add_entries(to.dir, +1);
  add_file(from, -delta);
  add_file(to, delta);
  apply_upwards(from.dir, common, -delta, clamped_ns);
  apply_upwards(to.dir, common, delta, clamped_ns);
  apply_upwards(common, {}, {}, clamped_ns);
  return true;
}

FilePlace DirTree::place_in(DirIndex dir) {
  ReaderLock lock(lock_);
  return {.dir = dir, .epoch = node(dir).epoch};
}

bool DirTree::is_stale(FilePlace place) const {
  const DirNode& n = node(place.dir);
  const bool is_unmet =
      has_flag(place.dir, recounting) && place.epoch == static_cast<uint8_t>(n.epoch - 1);
  return (place.epoch != n.epoch && !is_unmet) || !is_attached(place.dir);
}

void DirTree::add_file(FilePlace place, const Delta& counted) {
  DirNode& n = node(place.dir);
  add_checked(place.dir, n.file_bytes, counted.bytes.count);
  add_checked(place.dir, n.file_blocks, counted.disk.count);
  if (is_met(place)) return;
  Unmet& unmet = unmet_of(place.dir);
  unmet.bytes.fetch_add(counted.bytes.count);
  unmet.blocks.fetch_add(counted.disk.count);
  unmet.files.fetch_add(counted.files);
}

DirIndex DirTree::lowest_common_ancestor(DirIndex a, DirIndex b) const {
  uint32_t depth_a = depth_of(*this, a);
  uint32_t depth_b = depth_of(*this, b);
  for (; depth_a > depth_b; --depth_a)
    a = parent(a);
  for (; depth_b > depth_a; --depth_b)
    b = parent(b);
  while (a != b) {
    a = parent(a);
    b = parent(b);
  }
  return a;
}

bool DirTree::is_at_or_below(DirIndex dir, DirIndex ancestor) const {
  while (dir && dir != ancestor)
    dir = parent(dir);
  return bool{dir};
}

void DirTree::add_entries(DirIndex dir, int64_t entries) {
  add_checked(dir, node(dir).files, entries);
}

void DirTree::reconcile_own(DirIndex dir, const FileStat& stat, bool mutated) {
  DirNode& n = node(dir);
  const TimeNs clamped_ns = clamp_to_now(stat.ctime_ns);
  const Blocks change = {stat.blocks.count - n.own_blocks};
  const auto ctime_low = static_cast<uint32_t>(stat.ctime_ns);
  // Two conditions: a ctime in the future is newer than rctime for as long as it is in the future,
  // and one that is older is covered by what was counted since.
  const bool is_newer = ctime_low != n.own_ctime_low && n.rctime_ns < clamped_ns;
  n.own_ctime_low = ctime_low;
  if (change.count == 0 && !is_newer && !mutated) return;
  ReaderLock lock(lock_);
  n.own_blocks = static_cast<uint32_t>(stat.blocks.count);
  if (is_attached(dir)) apply_upwards(dir, {}, {.disk = change, .unique = change}, clamped_ns);
}

DirCounters DirTree::counters(DirIndex dir) const {
  const DirNode& n = node(dir);
  const int64_t bytes = n.bytes;
  return {.rbytes = {bytes},
          .rdisk = {n.disk_blocks},
          .runique = {n.unique_blocks},
          .rfiles = n.rfiles,
          .rsubdirs = n.rsubdirs,
          .files = signed_count(n.files.load()),
          .subdirs = signed_count(n.subdirs.load()),
          .rctime_ns = n.rctime_ns,
          .rgen = n.rgen,
          // Below 0 is also what does not fit: two sparse files may be that large.
          .suspect = has_suspects(dir) || bytes < 0 || (dir != root_ && !parent(dir))};
}

DirIndex DirTree::find(const FileKey& key) const { return {keys_.find(key)}; }

void DirTree::mark_suspect(DirIndex dir) {
  ReaderLock lock(lock_);
  suspect_upwards(dir);
}

void DirTree::suspect_upwards(DirIndex dir) {
  if (!dir) return;
  suspicions_.fetch_add(1, std::memory_order_relaxed);
  const bool again = has_flag(dir, recounting);
  node(dir).flags.fetch_or(again ? doubt_own | doubt_renewed : doubt_own);
  doubt_upwards(parent(dir));
}

/// `dir` and all its ancestors have suspects below. Where one says so already, those above it do.
void DirTree::doubt_upwards(DirIndex dir) {
  while (dir && (node(dir).flags.fetch_or(doubt_below) & doubt_below) == 0)
    dir = parent(dir);
}

void DirTree::settle_suspects_below(DirIndex dir) {
  if (!has_flag(dir, doubt_below)) return;
  WriterLock lock(lock_);
  for (DirIndex child{node(dir).first_child}; child; child = {node(child).next_sibling})
    if (has_suspects(child)) return;
  node(dir).flags.fetch_and(static_cast<uint8_t>(~doubt_below));
}

// --- Recounting ------------------------------------------------------------------------------
//
// What is counted in a directory changes while it is recounted: files that are known are written
// to, whose inodes' locks are taken one after the other. So the sum of what is met can't be held
// against the sum of what is counted. Instead `unmet` starts with all that is counted, and what is
// met is taken out, at the value it has at that moment. From then on a change of that file does not
// concern `unmet`; a change of one that is not met yet changes both, what is counted and `unmet`.
// In the end `unmet` is what was counted and is not there. Beginning and ending exclude all
// changes, for a moment: so each change sees the directory recounted, or not, as a whole.

/// Of a directory that is being recounted.
DirTree::Unmet& DirTree::unmet_of(DirIndex dir) {
  const auto unmet = std::ranges::find(unmet_, dir, &Unmet::dir);
  assert(unmet != unmet_.end());
  return *unmet;
}

Status DirTree::begin_recount(DirIndex dir, int64_t linked_names) {
  WriterLock lock(lock_);
  if (!is_attached(dir)) return failure(ENOENT);
  DirNode& n = node(dir);
  if (has_flag(dir, recounting)) return failure(EBUSY);
  const auto unmet = std::ranges::find(unmet_, DirIndex{}, &Unmet::dir);
  if (unmet == unmet_.end()) return failure(EAGAIN);
  unmet->dir = dir;
  unmet->bytes = n.file_bytes.load();
  unmet->blocks = n.file_blocks.load();
  unmet->files = signed_count(n.files.load()) - linked_names;
  n.flags.fetch_and(static_cast<uint8_t>(~doubt_renewed));
  n.flags.fetch_or(recounting);
  ++n.epoch;
  for (DirIndex child{n.first_child}; child; child = {node(child).next_sibling})
    node(child).flags.fetch_or(unseen);
  return {};
}

FilePlace DirTree::meet_file(FilePlace place, const Delta& counted) {
  ReaderLock lock(lock_);
  if (is_stale(place)) return {};
  if (is_met(place)) return place;
  Unmet& unmet = unmet_of(place.dir);
  unmet.bytes.fetch_sub(counted.bytes.count);
  unmet.blocks.fetch_sub(counted.disk.count);
  unmet.files.fetch_sub(counted.files);
  return {.dir = place.dir, .epoch = node(place.dir).epoch};
}

bool DirTree::meet_child(DirIndex dir, DirIndex child) {
  ReaderLock lock(lock_);
  if (!child || parent(child) != dir) return false;
  node(child).flags.fetch_and(static_cast<uint8_t>(~unseen));
  return true;
}

DirTree::Files DirTree::end_recount(DirIndex dir, const Files& others, TimeNs ctime_ns,
                                    bool complete) {
  const TimeNs clamped_ns = clamp_to_now(ctime_ns);
  WriterLock lock(lock_);
  DirNode& n = node(dir);
  Unmet& unmet = unmet_of(dir);
  const Files unmet_files = {
      .bytes = {unmet.bytes}, .blocks = {unmet.blocks}, .count = unmet.files};
  unmet.dir = {};
  n.flags.fetch_and(static_cast<uint8_t>(~recounting));
  if (!complete || !is_attached(dir)) {
    // What was not met may be there all the same.
    suspect_upwards(dir);
    return {};
  }
  // A place in this directory goes stale with a recount, but not with the use of its node for
  // another one.
  if (unmet_files.count != 0) n.flags.fetch_or(has_lost);
  const Files missed = {.bytes = others.bytes - unmet_files.bytes,
                        .blocks = others.blocks - unmet_files.blocks,
                        .count = others.count - unmet_files.count};
  n.file_bytes.fetch_add(missed.bytes.count);
  n.file_blocks.fetch_add(missed.blocks.count);
  static_cast<void>(add_signed(n.files, missed.count));
  const Delta delta = {
      .bytes = missed.bytes, .disk = missed.blocks, .unique = missed.blocks, .files = missed.count};
  const bool is_newer = n.rctime_ns < clamped_ns;
  if (delta != Delta{} || is_newer) apply_upwards(dir, {}, delta, clamped_ns);
  if (!has_flag(dir, doubt_renewed)) n.flags.fetch_and(static_cast<uint8_t>(~doubt_own));
  return missed;
}

void DirTree::watch(DirIndex dir, uint64_t watcher) {
  assert(watcher != 0);
  node(dir).watcher.store(watcher);
}

}  // namespace tally
