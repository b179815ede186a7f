// AccountsModel: directories, what happens behind our back, and the scan.

#include <algorithm>
#include <cerrno>
#include <utility>

#include "tests/model/accounts_model.hpp"

namespace tally::test {

void AccountsModel::observe(const Dir& dir, bool mutated) {
  if (dir.index) accounts_->dir_observed(dir.index, ModelTree::stat_of(dir), mutated);
}

/// Names in `dir` came or went: its ctime follows, and now and then its blocks.
void AccountsModel::parent_changed(uint32_t number) {
  Dir& dir = tree_.dir(number);
  if (dir.shared) return;
  dir.blocks = {8 * (1 + int64_t{dir.files + dir.subdirs} / 4)};
  stamp(dir);
  observe(dir, false);
}

void AccountsModel::now_suspect(uint32_t dir) {
  tree_.dir(dir).doubt_own = true;
  now_suspect_below(tree_.dir(dir).parent);
}

void AccountsModel::now_suspect_below(uint32_t dir) {
  for (; dir != ModelTree::none; dir = tree_.dir(dir).parent)
    tree_.dir(dir).doubt_below = true;
}

/// The inode table keeps directories for a while after they are gone.
void AccountsModel::release_late(DirIndex dir) {
  if (!dir) return;  // made behind our back and never met
  to_release_.push_back(dir);
  if (to_release_.size() <= releases_delayed) return;
  const DirNode& node = accounts_->tree().node(to_release_.front());
  const bool keeps_node = node.files != 0 || (node.flags & has_lost) != 0;
  // One that is gone behind our back is still in the tree: what will be counted in it when it is
  // taken out, by an audit, is not known now.
  if (node.parent != 0 && keeps_node) {
    has_unsure_nodes_ = true;
  } else if (keeps_node) {
    ++nodes_lost_;
  }
  accounts_->tree().release(to_release_.front());
  to_release_.pop_front();
}

bool AccountsModel::mkdir(const Operands& given) {
  const auto [number, parent, unused, unused_too] = given;
  if (!has_dir(parent) || !tree_.is_fresh_dir(number)) return false;
  const DirectoryRoom room = accounts_->room_for_directory();
  const bool should_have_room = tree_.dirs().size() < room_.dirs;
  if (is_alone() && bool{room} != should_have_room)
    refused_ = should_have_room ? "mkdir is refused although there is room"
                                : "mkdir is let through although there is no room";
  if (!room) return false;
  Dir& dir = tree_.add_dir(number, parent);
  dir.blocks = {8};
  stamp(dir);
  const DirIndex above = tree_.dir(parent).index;
  const auto made = above ? accounts_->dir_created(above, ModelTree::stat_of(dir))
                          : Result<DirIndex>(failure(ESTALE));
  if (!made) {
    // The parent's node may have gone with what it was in before it was moved behind our back.
    if (is_disturbed_) return true;
    refused_ = "a directory is not accounted although there was room: " + made.error().message();
    return false;
  }
  dir.index = *made;
  touch(parent);
  parent_changed(parent);
  return true;
}

void AccountsModel::drop_dir(uint32_t number) {
  const DirIndex index = tree_.dir(number).index;
  tree_.remove_dir(number);
  if (index) accounts_->dir_removed(index);
  release_late(index);
}

bool AccountsModel::rmdir(const Operands& given) {
  const uint32_t dir = given[0];
  if (!may_change(dir) || !tree_.is_empty(dir)) return false;
  const uint32_t parent = tree_.dir(dir).parent;
  drop_dir(dir);
  touch(parent);
  parent_changed(parent);
  return true;
}

/// The file is gone and nobody holds it open: another one may get its inode number.
void AccountsModel::lose_file(File& file) {
  file.lost = true;
  has_lost_files_ = true;
  if (file.handles == 0 && file.external == 0) tree_.lost_inos.push_back(file.ino);
}

bool AccountsModel::remove_behind(const Operands& given) {
  const uint32_t top = given[0];
  if (!may_change(top)) return false;
  const uint32_t parent = tree_.dir(top).parent;
  const bool was_empty = tree_.is_empty(top);
  std::vector<uint32_t> dirs;
  for (const uint32_t dir : tree_.dirs().numbers())
    if (dir != top && tree_.is_at_or_below(dir, top)) dirs.push_back(dir);
  const std::vector<uint32_t> survivors = take_out(top);
  const bool was_in_doubt = tree_.dir(top).doubt_own && dirs.empty();
  drop_dir(top);
  for (const uint32_t dir : dirs)
    release_late(tree_.dir(dir).index);
  if (!was_empty && !was_in_doubt) now_suspect(parent);
  touch(parent);
  parent_changed(parent);
  for (const uint32_t name : survivors) {
    if (!has_name(name)) continue;
    record_of(name);
    stamp(tree_.file_named(name));
    observe(tree_.file_named(name), false);
  }
  return true;
}

/// A directory of ours moves, perhaps to where it is, and the accounts are told.
void AccountsModel::relocate(uint32_t number, uint32_t to) {
  Dir& dir = tree_.dir(number);
  touch(dir.parent);
  tree_.move_dir(number, to);
  stamp(dir);
  if (const DirIndex to_index = tree_.dir(to).index; dir.index && to_index)
    accounts_->dir_moved(dir.index, to_index, ModelTree::stat_of(dir));
  if (dir.is_suspect()) now_suspect_below(to);
  touch(to);
}

bool AccountsModel::move_dir(const Operands& given) {
  const auto [dir, to, unused, unused_too] = given;
  if (!may_change(dir) || !has_dir(to) || tree_.is_at_or_below(to, dir)) return false;
  const uint32_t from = tree_.dir(dir).parent;
  relocate(dir, to);
  parent_changed(from);
  parent_changed(to);
  return true;
}

bool AccountsModel::overwrite_dir(const Operands& given) {
  const auto [dir, victim, unused, unused_too] = given;
  if (!may_change(dir) || !may_change(victim) || dir == victim) return false;
  if (!tree_.is_empty(victim) || tree_.is_at_or_below(victim, dir)) return false;
  const uint32_t from = tree_.dir(dir).parent;
  const uint32_t to = tree_.dir(victim).parent;
  drop_dir(victim);
  relocate(dir, to);
  parent_changed(from);
  parent_changed(to);
  return true;
}

bool AccountsModel::exchange_dirs(const Operands& given) {
  const auto [a, b, unused, unused_too] = given;
  if (!may_change(a) || !may_change(b)) return false;
  if (tree_.is_at_or_below(a, b) || tree_.is_at_or_below(b, a)) return false;
  const uint32_t parent_a = tree_.dir(a).parent;
  const uint32_t parent_b = tree_.dir(b).parent;
  relocate(a, parent_b);
  relocate(b, parent_a);
  parent_changed(parent_a);
  parent_changed(parent_b);
  return true;
}

bool AccountsModel::chmod_dir(const Operands& given) {
  if (!has_dir(given[0]) || tree_.dir(given[0]).shared) return false;
  Dir& dir = tree_.dir(given[0]);
  stamp(dir);
  observe(dir, true);
  touch(given[0]);
  return true;
}

bool AccountsModel::set_future_dir(const Operands& given) {
  if (!has_dir(given[0]) || tree_.dir(given[0]).shared) return false;
  Dir& dir = tree_.dir(given[0]);
  stamp_future(dir, given[1]);
  observe(dir, true);
  touch(given[0]);
  return true;
}

bool AccountsModel::grow_dir(const Operands& given) {
  const auto [number, blocks, unused, unused_too] = given;
  if (!has_dir(number) || tree_.dir(number).shared) return false;
  Dir& dir = tree_.dir(number);
  dir.blocks = {blocks};
  observe(dir, false);
  return true;
}

// --- The scan --------------------------------------------------------------------------------

bool AccountsModel::scan_again(const Operands& /*given*/) {
  if (!is_alone() || room_.is_tight()) return false;
  while (!tree_.handles().empty())
    close({tree_.handles().numbers().back()});
  own_accounts_ = std::make_unique<Accounts>(room_.dirs, room_.links);
  accounts_ = own_accounts_.get();
  to_release_.clear();
  gone_.clear();
  is_disturbed_ = false;
  nodes_lost_ = 0;
  has_unsure_nodes_ = false;
  touched_.clear();
  tree_.lost_inos.clear();
  for (const uint32_t number : tree_.dirs().numbers()) {
    Dir& dir = tree_.dir(number);
    dir.doubt_own = dir.doubt_below = false;
    dir.rctime_seen_ns = 0;
    dir.rgen_seen = 0;
  }
  Dir& root = tree_.dir(ModelTree::root);
  root.index = accounts_->tree().insert({}, ModelTree::stat_of(root)).value();
  insert_below(ModelTree::root);
  scan_names();
  return true;
}

void AccountsModel::insert_below(uint32_t parent) {
  for (const uint32_t number : tree_.dirs().numbers()) {
    Dir& dir = tree_.dir(number);
    if (dir.parent != parent) continue;
    dir.index = accounts_->dir_created(tree_.dir(parent).index, ModelTree::stat_of(dir)).value();
    insert_below(number);
  }
}

/// In the order of the numbers' set, which is none: workers read several directories at once.
void AccountsModel::scan_names() {
  for (const uint32_t name : tree_.names().numbers()) {
    File& file = tree_.file_named(name);
    const DirIndex dir = tree_.dir_of(name).index;
    file.recorded = false;
    file.record = {};
    const FileStat stat = ModelTree::stat_of(file);
    if (stat.nlink > 1) {
      accounts_->tree().add_entries(dir, +1);
      static_cast<void>(accounts_->links().add_scanned_name(dir, stat));
      continue;
    }
    const Delta delta = {
        .bytes = stat.size, .disk = stat.blocks, .unique = stat.blocks, .files = 1};
    static_cast<void>(accounts_->tree().apply_file({.dir = dir}, delta, stat.ctime_ns, +1));
  }
  accounts_->links().fold();
}

}  // namespace tally::test
