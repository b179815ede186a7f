// AccountsModel: what happens behind our back, and the audit that finds it, as fs/recounter makes
// it.

#include <algorithm>
#include <utility>

#include "tests/model/accounts_model.hpp"

namespace tally::test {

// --- Changes that the accounts are not told -----------------------------------------------------

void AccountsModel::changed_behind(uint32_t number) {
  is_disturbed_ = true;
  Dir& dir = tree_.dir(number);
  dir.blocks = {8 * (1 + int64_t{dir.files + dir.subdirs} / 4)};
  stamp(dir);
}

bool AccountsModel::behind_create(const Operands& given) {
  const auto [name, dir, size, blocks] = given;
  if (!has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  const uint32_t file = make_file(given);
  tree_.add_name(name, file, dir);
  stamp(tree_.file(file));
  changed_behind(dir);
  return true;
}

bool AccountsModel::behind_link(const Operands& given) {
  const auto [name, from, dir, unused] = given;
  if (!has_name(from) || !has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  tree_.add_name(name, tree_.name(from).file, dir);
  stamp(tree_.file_named(name));
  changed_behind(dir);
  return true;
}

bool AccountsModel::behind_unlink(const Operands& given) {
  if (!has_name(given[0])) return false;
  File& file = tree_.file_named(given[0]);
  const uint32_t dir = tree_.name(given[0]).dir;
  tree_.remove_name(given[0]);
  stamp(file);
  if (file.names.empty()) lose_file(file);
  changed_behind(dir);
  return true;
}

bool AccountsModel::behind_rename(const Operands& given) {
  const auto [name, to, unused, unused_too] = given;
  if (!has_name(name) || !has_dir(to)) return false;
  const uint32_t from = tree_.name(name).dir;
  tree_.move_name(name, to);
  stamp(tree_.file_named(name));
  changed_behind(from);
  changed_behind(to);
  return true;
}

bool AccountsModel::behind_write(const Operands& given) {
  const auto [name, size, blocks, unused] = given;
  if (!has_name(name)) return false;
  File& file = tree_.file_named(name);
  file.size = {size};
  file.blocks = {blocks};
  stamp(file);
  is_disturbed_ = true;
  return true;
}

bool AccountsModel::behind_mkdir(const Operands& given) {
  const auto [number, parent, unused, unused_too] = given;
  if (!has_dir(parent) || !tree_.is_fresh_dir(number)) return false;
  if (tree_.dirs().size() >= room_.dirs) return false;
  Dir& dir = tree_.add_dir(number, parent);
  dir.blocks = {8};
  stamp(dir);
  changed_behind(parent);
  return true;
}

bool AccountsModel::behind_move_dir(const Operands& given) {
  const auto [dir, to, unused, unused_too] = given;
  if (!may_change(dir) || !has_dir(to) || tree_.is_at_or_below(to, dir)) return false;
  const uint32_t from = tree_.dir(dir).parent;
  tree_.move_dir(dir, to);
  stamp(tree_.dir(dir));
  changed_behind(from);
  changed_behind(to);
  return true;
}

/// All in and below a directory is gone, but itself and what the front end knows of it. Returns
/// other names of what was in it.
std::vector<uint32_t> AccountsModel::take_out(uint32_t top) {
  std::vector<uint32_t> names;
  for (const uint32_t name : tree_.names().numbers())
    if (tree_.is_at_or_below(tree_.name(name).dir, top)) names.push_back(name);
  std::vector<uint32_t> survivors;
  for (const uint32_t name : names) {
    File& file = tree_.file_named(name);
    tree_.remove_name(name);
    stamp(file);
    if (file.names.empty()) {
      lose_file(file);
    } else {
      survivors.push_back(file.names.front());
    }
  }
  std::vector<uint32_t> dirs;
  for (const uint32_t dir : tree_.dirs().numbers())
    if (dir != top && tree_.is_at_or_below(dir, top)) dirs.push_back(dir);
  for (const uint32_t dir : dirs)
    tree_.remove_dir(dir);
  return survivors;
}

bool AccountsModel::behind_remove_dir(const Operands& given) {
  const uint32_t top = given[0];
  if (!may_change(top)) return false;
  std::vector<uint32_t> dirs;
  for (const uint32_t dir : tree_.dirs().numbers())
    if (tree_.is_at_or_below(dir, top)) dirs.push_back(dir);
  static_cast<void>(take_out(top));
  tree_.remove_dir(top);
  for (const uint32_t dir : dirs)
    if (tree_.dir(dir).index) gone_.push_back(tree_.dir(dir).index);
  changed_behind(tree_.dir(top).parent);
  return true;
}

bool AccountsModel::behind_link_outside(const Operands& given) {
  if (!has_name(given[0])) return false;
  ++tree_.file_named(given[0]).external;
  stamp(tree_.file_named(given[0]));
  is_disturbed_ = true;
  return true;
}

// --- What requests meet -------------------------------------------------------------------------

/// The kernel looks up all that an operation goes by, so that the front end meets it.
void AccountsModel::look_up(const Operation& operation) {
  const OperationForm& form = accounts_vocabulary[operation.kind];
  if (operation.kind >= static_cast<uint8_t>(Change::behind_create)) return;
  for (std::size_t i = 0; form.operands[i] != '\0'; ++i) {
    const uint32_t number = operation.operands[i];
    if (form.operands[i] == 'd' && has_dir(number)) look_up(number);
    if (form.operands[i] == 'n' && has_name(number)) look_up(tree_.name(number).dir);
  }
}

void AccountsModel::look_up(uint32_t number) {
  Dir& dir = tree_.dir(number);
  if (dir.parent == ModelTree::none || dir.index) return;
  look_up(dir.parent);
  const DirIndex parent = tree_.dir(dir.parent).index;
  if (!parent) return;
  dir.index = accounts_->dir_found(parent, ModelTree::stat_of(dir), false).value_or(DirIndex());
}

// --- The audit ----------------------------------------------------------------------------------

/// What is in each directory, by its number.
struct AccountsModel::Listing {
  explicit Listing(const ModelTree& tree) : names(tree.fresh_dir()), children(tree.fresh_dir()) {
    for (const uint32_t name : tree.names().numbers())
      names[tree.name(name).dir].push_back(name);
    for (const uint32_t dir : tree.dirs().numbers())
      if (dir != ModelTree::root) children[tree.dir(dir).parent].push_back(dir);
  }

  std::vector<std::vector<uint32_t>> names;
  std::vector<std::vector<uint32_t>> children;
};

bool AccountsModel::audit(const Operands& /*given*/) {
  if (!is_alone() || room_.is_tight()) return false;
  // What the first walk has left suspect, because of what it did to others, the next ones repair.
  constexpr int walks_max = 3;
  for (int i = 0; i < walks_max; ++i) {
    walk();
    if (!accounts_->tree().has_suspects(accounts_->tree().root())) break;
  }
  for (const DirIndex gone : gone_)
    release_late(gone);
  gone_.clear();
  for (const uint32_t number : tree_.dirs().numbers())
    tree_.dir(number).doubt_own = tree_.dir(number).doubt_below = false;
  is_disturbed_ = false;
  return true;
}

/// From the root down, and up again.
void AccountsModel::walk() {
  const Listing listing(tree_);
  std::vector<uint32_t> way = {ModelTree::root};
  for (std::size_t i = 0; i < way.size(); ++i) {
    const std::vector<uint32_t>& children = listing.children[way[i]];
    recount(way[i], listing.names[way[i]], children);
    way.insert(way.end(), children.begin(), children.end());
  }
  for (std::size_t i = way.size(); i-- > 0;)
    accounts_->tree().settle_suspects_below(tree_.dir(way[i]).index);
  for (const auto& [key, index] : std::exchange(missing_, {}))
    if (accounts_->tree().find(key) == index && accounts_->tree().is_unseen(index))
      accounts_->dir_removed(index);
}

void AccountsModel::recount(uint32_t number, const std::vector<uint32_t>& names,
                            const std::vector<uint32_t>& children) {
  Dir& dir = tree_.dir(number);
  accounts_->dir_observed(dir.index, ModelTree::stat_of(dir), false);
  Recount recount(*accounts_, dir.index);
  if (const Status begun = recount.begin(); !begun) {
    refused_ = "d" + std::to_string(number) + " can't be recounted: " + begun.error().message();
    return;
  }
  for (const uint32_t child : children)
    meet_directory(recount, number, child);
  for (const uint32_t name : names)
    meet_name(recount, name);
  static_cast<void>(recount.finish(true));
  DirTree& tree = accounts_->tree();
  tree.for_each_unseen_child(
      dir.index, [&](DirIndex child) { missing_.emplace_back(tree.key_of(child), child); });
}

void AccountsModel::meet_directory(Recount& recount, uint32_t parent, uint32_t child) {
  Dir& dir = tree_.dir(child);
  const FileStat now = ModelTree::stat_of(dir);
  if (recount.meet_directory(now.key)) {
    if (!dir.index) dir.index = accounts_->tree().hold(now.key);
    return;
  }
  const auto found = accounts_->dir_found(tree_.dir(parent).index, now, false);
  if (!found) return;
  if (const DirIndex former = std::exchange(dir.index, *found)) {
    if (former == *found) {
      accounts_->tree().release(former);
    } else {
      // Its node went with what it was in before it was moved behind our back.
      release_late(former);
      dir.rgen_seen = 0;
      dir.rctime_seen_ns = 0;
    }
  }
  static_cast<void>(recount.meet_directory(now.key));
}

void AccountsModel::meet_name(Recount& recount, uint32_t name) {
  File& file = tree_.file_named(name);
  const FileStat now = ModelTree::stat_of(file);
  if (!file.recorded) {
    accounts_->link_found(file.record, now.key);
    if (!file.record.link && now.nlink == 1) return recount.meet(now);
    file.recorded = true;
  }
  recount.meet(file.record, now);
}

}  // namespace tally::test
