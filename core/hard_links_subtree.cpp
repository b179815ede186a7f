// What concerns all hard links of a subtree: a directory that moves, and totals that are verified.

#include <algorithm>
#include <utility>

#include "core/hard_links.hpp"

namespace tally {

/// Calls `each(link)` once for every inode with a name in or below `dir`.
template <class Each>
void HardLinks::for_each_link_below(DirIndex dir, Each each) {
  ++stamp_;
  DirIndex d = dir;
  while (true) {
    const DirNode& n = tree_.node(d);
    for (NameIndex i{n.first_link_name}; i; i = names_[i].next_in_dir) {
      if (std::exchange(links_[names_[i].link].stamp, stamp_) != stamp_) each(names_[i].link);
    }
    // Depth first, leaving out subtrees without names of hard-linked inodes.
    if (n.link_names != 0 && n.first_child != 0) {
      d = {n.first_child};
      continue;
    }
    while (d != dir && tree_.node(d).next_sibling == 0)
      d = tree_.parent(d);
    if (d == dir) return;
    d = {tree_.node(d).next_sibling};
  }
}

// --- Totals are verified --------------------------------------------------------------------
//
// What a directory counts is what its own files and its children count, but for inodes that several
// of these share.
bool HardLinks::verify(DirIndex dir, uint32_t names_max) {
  MutexLock lock(mutex_);
  WriterLock tree_lock(tree_.lock());
  const DirNode& n = tree_.node(dir);
  if (!tree_.is_attached(dir) || n.link_names > names_max) return true;
  int64_t own_names = 0;
  for (NameIndex i{n.first_link_name}; i; i = names_[i].next_in_dir)
    own_names += names_[i].count;
  Delta expected = tree_.own_totals(dir, own_names);
  for (DirIndex child{n.first_child}; child; child = {tree_.node(child).next_sibling})
    expected += tree_.totals(child);
  for_each_link_below(dir, [&](LinkIndex link) TALLY_REQUIRES(mutex_) {
    expected += shared_by_children(dir, link);
  });
  expected += -tree_.totals(dir);
  if (expected == Delta{}) return true;
  tree_.add(dir, expected, 0);
  return false;
}

/// What an inode adds to a directory that it does not add to its children.
Delta HardLinks::shared_by_children(DirIndex dir, LinkIndex link) {
  const Counted& counted = links_[link].counted;
  visit_names(link);
  Delta shared;
  for (uint32_t i = 0; i < visit_count_; ++i) {
    const Visit& met = visits_[i];
    if (met.dir == dir) shared += contribution(counted, met.after);
    if (tree_.parent(met.dir) == dir) shared += -contribution(counted, met.after);
  }
  return shared;
}

// --- A directory moves -----------------------------------------------------------------------
//
// Ancestors that the old and the new place have in common keep what they count; all that can change
// is in the two chains below the lowest common one. What a directory counts is the sum over plain
// inodes plus the union over hard-linked ones, so the totals of the moved directory are taken from
// the one chain and given to the other as they are, and then corrected for every hard-linked inode
// with names in the subtree: it does not leave an old ancestor that has other names of it, and is
// no news to a new one. Everything is collected per directory first and then applied in one step.

struct HardLinks::Move {
  DirIndex dir;
  Delta totals;
  uint32_t old_end;  // visits 1 … old_end - 1: the old chain; visit 0 is the directory itself
  uint32_t new_end;  // visits old_end … new_end - 1: the new chain
};

void HardLinks::move_directory(DirIndex dir, DirIndex to, TimeNs ctime_ns) {
  MutexLock lock(mutex_);
  WriterLock tree_lock(tree_.lock());
  // Not every filesystem moves the ctime of what is renamed, but all below is new to the new place.
  const TimeNs newest_ns = std::max<TimeNs>(clamp_to_now(ctime_ns), tree_.node(dir).rctime_ns);
  const DirIndex from = tree_.parent(dir);
  if (!from || !tree_.is_attached(to) || tree_.is_at_or_below(to, dir)) {
    // Something was moved or removed behind our back, and it stays counted where it was.
    tree_.suspect_upwards(from);
    tree_.suspect_upwards(to);
    return;
  }
  const DirIndex common = tree_.lowest_common_ancestor(from, to);

  visit_count_ = 0;
  visit(dir);
  for (DirIndex d = from; d != common; d = tree_.parent(d))
    visit(d);
  Move move{.dir = dir, .totals = tree_.totals(dir), .old_end = visit_count_, .new_end = 0};
  for (DirIndex d = to; d != common; d = tree_.parent(d))
    visit(d);
  move.new_end = visit_count_;

  move_totals(move);
  // Within one directory no total changes.
  if (move.new_end > 1 && move.totals.link_names != 0) correct_links(move);

  if (from != to) tree_.relink(dir, to);
  for (uint32_t i = 0; i < move.new_end; ++i)
    tree_.add(visits_[i].dir, visits_[i].delta, newest_ns);
  for (DirIndex d = common; d; d = tree_.parent(d))
    tree_.add(d, {}, newest_ns);
}

void HardLinks::move_totals(const Move& move) {
  for (uint32_t i = 1; i < move.old_end; ++i)
    visits_[i].delta = -move.totals;
  for (uint32_t i = move.old_end; i < move.new_end; ++i)
    visits_[i].delta = move.totals;
}

void HardLinks::correct_links(const Move& move) {
  for_each_link_below(move.dir,
                      [&](LinkIndex link) TALLY_REQUIRES(mutex_) { correct_link(move, link); });
}

void HardLinks::correct_link(const Move& move, LinkIndex link) {
  visit_count_ = move.new_end;
  for (uint32_t i = 0; i < move.new_end; ++i)
    visits_[i].before = 0;
  const Link& inode = links_[link];
  for (NameIndex n = inode.first_name; n; n = names_[n].next_of_link)
    visit_upwards(names_[n].dir, static_cast<int32_t>(names_[n].count), 0);

  const int32_t moving = visits_[0].before;
  const Delta moved = contribution(inode.counted, moving);
  for (uint32_t i = 1; i < move.new_end; ++i) {
    const bool leaves = i < move.old_end;
    const int32_t before = visits_[i].before;
    Delta& delta = visits_[i].delta;
    delta += contribution(inode.counted, leaves ? before - moving : before + moving);
    delta += -contribution(inode.counted, before);
    delta += leaves ? moved : -moved;  // what move_totals() has assumed
  }
}

}  // namespace tally
