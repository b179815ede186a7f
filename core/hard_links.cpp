#include "core/hard_links.hpp"

#include <algorithm>
#include <cassert>
#include <limits>
#include <utility>

namespace tally {

namespace {

uint32_t names_max(uint32_t inodes_max) {
  return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{inodes_max} * HardLinks::names_per_inode,
                                                  std::numeric_limits<uint32_t>::max() - 1));
}

}  // namespace

HardLinks::HardLinks(DirTree& tree, uint32_t inodes_max)
    : tree_(tree),
      keys_(inodes_max),
      links_(inodes_max),
      names_(names_max(inodes_max)),
      visits_(std::size_t{tree.index_max()} + 1) {}

// --- Which inode has names where -------------------------------------------------------------

HardLinks::Counted HardLinks::observed(const FileStat& now) {
  return {.size = now.size, .blocks = now.blocks, .nlink = now.nlink};
}

Result<LinkIndex> HardLinks::create(const FileStat& stat, DirIndex dir) {
  auto link = links_.acquire();
  if (!link) return link;
  links_[*link].counted = observed(stat);
  links_[*link].ctime_ns = stat.ctime_ns;
  if (const Status recorded = record(*link, dir); !recorded) {
    (void)links_.release(*link);
    return std::unexpected(recorded.error());
  }
  [[maybe_unused]] const uint32_t stored = keys_.insert(stat.key, link->value);
  assert(stored == link->value);
  return link;
}

Status HardLinks::record(LinkIndex link, DirIndex dir) {
  Link& inode = links_[link];
  const NameIndex known = find_name(link, dir, [](const Name&) { return true; });
  if (!known) return record_anew(link, dir);
  ++names_[known].count;
  ++inode.names;
  return {};
}

/// A walk through the inode's names and those of the directory at once, since either may be many.
template <class Wanted>
HardLinks::NameIndex HardLinks::find_name(LinkIndex link, DirIndex dir, Wanted wanted) {
  NameIndex of_link = links_[link].first_name;
  NameIndex in_dir{tree_.node(dir).first_link_name};
  while (of_link && in_dir) {
    if (names_[of_link].dir == dir && wanted(names_[of_link])) return of_link;
    if (names_[in_dir].link == link && wanted(names_[in_dir])) return in_dir;
    of_link = names_[of_link].next_of_link;
    in_dir = names_[in_dir].next_in_dir;
  }
  return {};
}

Status HardLinks::record_anew(LinkIndex link, DirIndex dir) {
  Link& inode = links_[link];
  const auto name = names_.acquire();
  if (!name) return std::unexpected(name.error());
  names_[*name] = {.link = link,
                   .dir = dir,
                   .count = 1,
                   .unmet = 0,
                   .next_of_link = inode.first_name,
                   .next_in_dir = {},
                   .previous_in_dir = {}};
  inode.first_name = *name;
  ++inode.names;
  link_into_dir(*name);
  return {};
}

bool HardLinks::unrecord(LinkIndex link, DirIndex dir) {
  const NameIndex name = find_name(link, dir, [](const Name&) { return true; });
  if (!name) return false;
  unrecord(name, 1);
  return true;
}

/// Takes out `count` of the names that one record stands for.
void HardLinks::unrecord(NameIndex name, uint32_t count) {
  Name& record = names_[name];
  Link& inode = links_[record.link];
  inode.names -= count;
  record.count -= count;
  if (record.count != 0) return;
  NameIndex* place = &inode.first_name;
  while (*place != name)
    place = &names_[*place].next_of_link;
  *place = record.next_of_link;
  unlink_from_dir(name);
  (void)names_.release(name);
}

void HardLinks::link_into_dir(NameIndex name) {
  uint32_t& first = tree_.node(names_[name].dir).first_link_name;
  names_[name].next_in_dir = {first};
  if (first != 0) names_[{first}].previous_in_dir = name;
  first = name.value;
}

void HardLinks::unlink_from_dir(NameIndex name) {
  const Name& gone = names_[name];
  if (gone.previous_in_dir) {
    names_[gone.previous_in_dir].next_in_dir = gone.next_in_dir;
  } else {
    tree_.node(gone.dir).first_link_name = gone.next_in_dir.value;
  }
  if (gone.next_in_dir) names_[gone.next_in_dir].previous_in_dir = gone.previous_in_dir;
}

// --- One inode changes -----------------------------------------------------------------------

HardLinks::Visit& HardLinks::visit(DirIndex dir) {
  // A sparse set (Briggs and Torczon 1993): `scratch` is believed only if the visit it names is in
  // use and agrees, so that it never needs to be reset.
  uint32_t& slot = tree_.node(dir).scratch;
  if (slot >= visit_count_ || visits_[slot].dir != dir) {
    slot = visit_count_++;
    visits_[slot] = {.dir = dir, .before = 0, .after = 0, .delta = {}};
  }
  return visits_[slot];
}

void HardLinks::visit_upwards(DirIndex dir, int32_t before, int32_t after) {
  for (; dir; dir = tree_.parent(dir)) {
    Visit& met = visit(dir);
    met.before += before;
    met.after += after;
  }
}

void HardLinks::visit_names(LinkIndex link) {
  visit_count_ = 0;
  for (NameIndex i = links_[link].first_name; i; i = names_[i].next_of_link) {
    const auto count = static_cast<int32_t>(names_[i].count);
    visit_upwards(names_[i].dir, count, count);
  }
}

Delta HardLinks::contribution(const Counted& counted, int32_t names_below) {
  if (names_below <= 0) return {.link_names = names_below};
  const bool all_below = static_cast<uint32_t>(names_below) >= counted.nlink;
  return {.bytes = counted.size,
          .disk = counted.blocks,
          .unique = all_below ? counted.blocks : Blocks{},
          .files = 1,
          .link_names = names_below};
}

void HardLinks::settle(LinkIndex link, const FileStat& now) {
  const Counted before = links_[link].counted;
  const Counted after = links_[link].counted = observed(now);
  links_[link].ctime_ns = now.ctime_ns;
  note_unknown_names(links_[link]);
  const TimeNs ctime_ns = clamp_to_now(now.ctime_ns);
  for (uint32_t i = 0; i < visit_count_; ++i) {
    const Visit& met = visits_[i];
    Delta delta = contribution(after, met.after);
    delta += -contribution(before, met.before);
    tree_.add(met.dir, delta, ctime_ns);
  }
}

FileStat HardLinks::counted(LinkIndex link) {
  MutexLock lock(mutex_);
  return counted_stat(link);
}

/// Once all names are recorded none is counted in another way, whatever goes or comes later.
void HardLinks::note_unknown_names(Link& inode) {
  if (inode.names >= inode.counted.nlink) inode.is_searched = true;
  if (!inode.is_searched) may_have_names_to_search_ = true;
}

bool HardLinks::has_names_to_search(TimeNs since) {
  if (!may_have_names_to_search_.exchange(false)) return false;
  constexpr uint32_t at_once = 1024;  // links, some 10 us, that everybody waits for
  bool has_any = false;
  for (uint32_t first = 1; first <= links_.high_water(); first += at_once) {
    MutexLock lock(mutex_);
    const uint32_t last = std::min(first + at_once - 1, links_.high_water());
    for (uint32_t i = first; i <= last; ++i) {
      Link& inode = links_[{i}];
      if (!links_.is_held({i}) || inode.is_searched) continue;
      inode.is_searched = true;
      has_any = has_any || inode.ctime_ns >= since;
    }
  }
  return has_any;
}

FileStat HardLinks::counted_stat(LinkIndex link) {
  const Link& inode = links_[link];
  return {.key = keys_.key_of(link.value),
          .nlink = inode.counted.nlink,
          .size = inode.counted.size,
          .blocks = inode.counted.blocks,
          .ctime_ns = inode.ctime_ns};
}

Status HardLinks::add_scanned_name(DirIndex dir, const FileStat& stat) {
  MutexLock lock(mutex_);
  const LinkIndex known = find(stat.key);
  if (!known) {
    const auto created = create(stat, dir);
    return created ? Status() : std::unexpected(created.error());
  }
  // A look at the newest only: a directory is read in one go, so that a second name in it mostly
  // follows the first, and an inode in a farm of snapshots has names in very many directories.
  Link& inode = links_[known];
  if (inode.ctime_ns < stat.ctime_ns) {
    inode.counted = observed(stat);
    inode.ctime_ns = stat.ctime_ns;
  }
  if (!inode.first_name || names_[inode.first_name].dir != dir) return record_anew(known, dir);
  ++names_[inode.first_name].count;
  ++inode.names;
  return {};
}

void HardLinks::fold() {
  MutexLock lock(mutex_);
  ReaderLock tree_lock(tree_.lock());
  for (uint32_t i = 1; i <= links_.high_water(); ++i) {
    Link& inode = links_[{i}];
    note_unknown_names(inode);
    visit_count_ = 0;
    for (NameIndex n = inode.first_name; n; n = names_[n].next_of_link)
      visit_upwards(names_[n].dir, 0, static_cast<int32_t>(names_[n].count));
    const TimeNs ctime_ns = clamp_to_now(inode.ctime_ns);
    for (uint32_t v = 0; v < visit_count_; ++v)
      tree_.add(visits_[v].dir, contribution(inode.counted, visits_[v].after), ctime_ns);
  }
}

Result<LinkIndex> HardLinks::adopt(FilePlace place, const FileStat& counted) {
  MutexLock lock(mutex_);
  ReaderLock tree_lock(tree_.lock());
  if (tree_.is_stale(place)) return failure(ESTALE);
  const auto link = create(counted, place.dir);
  if (!link) return link;
  // As long as one name is all that is counted, the inode counts as unique.
  links_[*link].counted.nlink = 1;
  names_[links_[*link].first_name].unmet = tree_.is_met(place) ? 0 : 1;
  tree_.add_file(place, {.bytes = -counted.size, .disk = -counted.blocks, .files = -1});
  for (DirIndex d = place.dir; d; d = tree_.parent(d))
    tree_.add(d, {.link_names = 1}, 0);
  return link;
}

FilePlace HardLinks::drop(LinkIndex link) {
  MutexLock lock(mutex_);
  const Link& inode = links_[link];
  FilePlace place;
  if (inode.first_name) {
    ReaderLock tree_lock(tree_.lock());
    const Name& name = names_[inode.first_name];
    place = {.dir = name.dir, .epoch = tree_.node(name.dir).epoch};
    if (name.unmet != 0) --place.epoch;
    [[maybe_unused]] const bool unrecorded = unrecord(link, place.dir);
    assert(unrecorded && inode.names == 0);
    tree_.add_file(place, {.bytes = inode.counted.size, .disk = inode.counted.blocks, .files = 1});
    for (DirIndex d = place.dir; d; d = tree_.parent(d))
      tree_.add(d, {.link_names = -1}, 0);
  }
  keys_.erase(keys_.key_of(link.value), link.value);
  (void)links_.release(link);
  return place;
}

void HardLinks::add_name(LinkIndex link, DirIndex dir, const FileStat& now) {
  MutexLock lock(mutex_);
  ReaderLock tree_lock(tree_.lock());
  visit_names(link);
  gain_name(link, dir);
  settle(link, now);
}

/// After visit_names(). The entries of a directory are its files with one name and the names that
/// are recorded: where one can't be recorded, or was not, the entries stay as they are, too.
void HardLinks::gain_name(LinkIndex link, DirIndex dir) {
  if (!tree_.is_attached(dir) || !record(link, dir)) return tree_.suspect_upwards(dir);
  visit_upwards(dir, 0, +1);
  tree_.add_entries(dir, +1);
}

void HardLinks::lose_name(LinkIndex link, DirIndex dir) {
  if (!unrecord(link, dir)) return tree_.suspect_upwards(dir);
  visit_upwards(dir, 0, -1);
  tree_.add_entries(dir, -1);
}

uint32_t HardLinks::remove_name(LinkIndex link, DirIndex dir, const FileStat& now) {
  MutexLock lock(mutex_);
  ReaderLock tree_lock(tree_.lock());
  visit_names(link);
  lose_name(link, dir);
  settle(link, now);
  return links_[link].names;
}

void HardLinks::move_name(LinkIndex link, DirIndex from, DirIndex to, const FileStat& now) {
  MutexLock lock(mutex_);
  ReaderLock tree_lock(tree_.lock());
  visit_names(link);
  if (from != to) {
    // In this order: the name that goes makes room for the new one.
    lose_name(link, from);
    gain_name(link, to);
  }
  settle(link, now);
}

void HardLinks::reconcile(LinkIndex link, const FileStat& now) {
  MutexLock lock(mutex_);
  ReaderLock tree_lock(tree_.lock());
  visit_names(link);
  settle(link, now);
}

void HardLinks::forget_names_of(LinkIndex link, const FileStat& now) {
  MutexLock lock(mutex_);
  ReaderLock tree_lock(tree_.lock());
  visit_names(link);
  while (const NameIndex name = links_[link].first_name) {
    const DirIndex dir = names_[name].dir;
    tree_.suspect_upwards(dir);
    lose_name(link, dir);
  }
  settle(link, now);
}

void HardLinks::remove_directory(DirIndex dir) {
  MutexLock lock(mutex_);
  WriterLock tree_lock(tree_.lock());
  remove_subtree(dir);
}

void HardLinks::remove_unseen(DirIndex dir, const FileKey& key) {
  MutexLock lock(mutex_);
  WriterLock tree_lock(tree_.lock());
  if (tree_.find(key) == dir && tree_.is_unseen(dir)) remove_subtree(dir);
}

void HardLinks::remove_subtree(DirIndex dir) {
  const DirIndex above = tree_.parent(dir);
  if (!above) return;
  // Of one that was not counted yet more may have gone than came.
  const DirNode& removed = tree_.node(dir);
  const bool is_empty = removed.first_child == 0 && (removed.files == 0 || tree_.is_suspect(dir));
  if (!is_empty) tree_.suspect_upwards(above);
  DirIndex leaf;
  do {
    leaf = dir;
    while (const uint32_t child = tree_.node(leaf).first_child)
      leaf = {child};
    forget_names_in(leaf);
    tree_.remove(leaf);
  } while (leaf != dir);
}

void HardLinks::forget_names_in(DirIndex dir) {
  while (const NameIndex name{tree_.node(dir).first_link_name}) {
    const LinkIndex link = names_[name].link;
    visit_names(link);
    lose_name(link, dir);
    settle(link, counted_stat(link));
  }
}

// --- A directory is recounted ----------------------------------------------------------------

Status HardLinks::begin_recount(DirIndex dir) {
  MutexLock lock(mutex_);
  const NameIndex first{tree_.node(dir).first_link_name};
  int64_t names = 0;
  for (NameIndex i = first; i; i = names_[i].next_in_dir)
    names += names_[i].count;
  const Status begun = tree_.begin_recount(dir, names);
  if (!begun) return begun;
  for (NameIndex i = first; i; i = names_[i].next_in_dir)
    names_[i].unmet = names_[i].count;
  return {};
}

bool HardLinks::meet_name(LinkIndex link, DirIndex dir) {
  MutexLock lock(mutex_);
  const NameIndex name = find_name(link, dir, [](const Name& n) { return n.unmet != 0; });
  if (!name) return false;
  --names_[name].unmet;
  return true;
}

HardLinks::Missed HardLinks::end_recount(DirIndex dir, const DirTree::Files& others,
                                         TimeNs ctime_ns, bool complete) {
  MutexLock lock(mutex_);
  const int64_t lost_names = complete ? remove_unmet_names(dir) : 0;
  for (NameIndex i{tree_.node(dir).first_link_name}; i; i = names_[i].next_in_dir)
    names_[i].unmet = 0;
  return {.files = tree_.end_recount(dir, others, ctime_ns, complete), .lost_names = lost_names};
}

int64_t HardLinks::remove_unmet_names(DirIndex dir) {
  ReaderLock tree_lock(tree_.lock());
  int64_t removed = 0;
  NameIndex name{tree_.node(dir).first_link_name};
  while (name) {
    const NameIndex next = names_[name].next_in_dir;
    const LinkIndex link = names_[name].link;
    const uint32_t unmet = std::exchange(names_[name].unmet, 0);
    const NameIndex unmet_name = std::exchange(name, next);
    if (unmet == 0) continue;
    visit_names(link);
    unrecord(unmet_name, unmet);  // this record and no other: the next one stays
    visit_upwards(dir, 0, -static_cast<int32_t>(unmet));
    tree_.add_entries(dir, -int64_t{unmet});
    settle(link, counted_stat(link));
    removed += unmet;
    // How many names are left shows where one of them is met.
    const bool is_met = bool{find_name(link, dir, [](const Name&) { return true; })};
    const NameIndex left = links_[link].first_name;
    if (!is_met && left) tree_.suspect_upwards(names_[left].dir);
  }
  return removed;
}

}  // namespace tally
