// AccountsModel: names and handles of files.

#include <utility>

#include "tests/model/accounts_model.hpp"

namespace tally::test {

uint32_t AccountsModel::make_file(const Operands& given) {
  const auto [name, dir, size, blocks] = given;
  return tree_.add_file({size}, {blocks});
}

/// The file gets a name, and the accounts are told.
void AccountsModel::name_file(uint32_t name, uint32_t file_number, uint32_t dir) {
  tree_.add_name(name, file_number, dir);
  File& file = tree_.file(file_number);
  file.recorded = true;
  stamp(file);
  if (const DirIndex index = tree_.dir(dir).index)
    accounts_->name_added(file.record, index, ModelTree::stat_of(file));
  touch_names(file);
  parent_changed(dir);
}

bool AccountsModel::create(const Operands& given) {
  const auto [name, dir, size, blocks] = given;
  if (!has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  name_file(name, make_file(given), dir);
  return true;
}

bool AccountsModel::create_reused(const Operands& given) {
  const auto [name, dir, size, blocks] = given;
  if (!has_dir(dir) || !tree_.is_fresh_name(name) || tree_.lost_inos.empty()) return false;
  const uint32_t file = make_file(given);
  tree_.file(file).ino = tree_.lost_inos.back();
  tree_.lost_inos.pop_back();
  name_file(name, file, dir);
  return true;
}

bool AccountsModel::link(const Operands& given) {
  const auto [name, from, dir, unused] = given;
  if (!has_name(from) || !has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  record_of(from);
  name_file(name, tree_.name(from).file, dir);
  return true;
}

void AccountsModel::drop_name(uint32_t name, bool told) {
  record_of(name);
  File& file = tree_.file_named(name);
  const uint32_t dir = tree_.name(name).dir;
  touch_names(file);
  tree_.remove_name(name);
  stamp(file);
  const DirIndex index = tree_.dir(dir).index;
  if (told) accounts_->name_removed(file.record, index, ModelTree::stat_of(file), file.handles > 0);
}

bool AccountsModel::unlink(const Operands& given) {
  if (!has_name(given[0])) return false;
  const uint32_t dir = tree_.name(given[0]).dir;
  drop_name(given[0]);
  parent_changed(dir);
  return true;
}

void AccountsModel::move_name(uint32_t name, uint32_t to) {
  const uint32_t from = tree_.name(name).dir;
  FileRecord& record = record_of(name);
  File& file = tree_.file_named(name);
  touch_names(file);
  tree_.move_name(name, to);
  stamp(file);
  const DirIndex from_index = tree_.dir(from).index;
  const DirIndex to_index = tree_.dir(to).index;
  if (from_index && to_index) {
    accounts_->name_moved(record, from_index, to_index, ModelTree::stat_of(file));
  } else if (to_index) {
    accounts_->name_added(record, to_index, ModelTree::stat_of(file));
  } else if (from_index) {
    accounts_->name_removed(record, from_index, ModelTree::stat_of(file), false);
  }
  touch(to);
}

bool AccountsModel::rename(const Operands& given) {
  const auto [name, to, unused, unused_too] = given;
  if (!has_name(name) || !has_dir(to)) return false;
  const uint32_t from = tree_.name(name).dir;
  move_name(name, to);
  parent_changed(from);
  parent_changed(to);
  return true;
}

bool AccountsModel::overwrite(const Operands& given) {
  const auto [name, victim, unused, unused_too] = given;
  if (!has_name(name) || !has_name(victim)) return false;
  // rename(2): of two names of one inode both stay.
  if (tree_.name(name).file == tree_.name(victim).file) return false;
  const uint32_t from = tree_.name(name).dir;
  const uint32_t to = tree_.name(victim).dir;
  const bool is_told =
      fault_ != Fault::overwrite_not_told || tree_.file_named(victim).names.size() < 2;
  drop_name(victim, is_told);
  move_name(name, to);
  parent_changed(from);
  parent_changed(to);
  return true;
}

bool AccountsModel::exchange(const Operands& given) {
  const auto [a, b, unused, unused_too] = given;
  if (!has_name(a) || !has_name(b) || tree_.name(a).file == tree_.name(b).file) return false;
  const uint32_t dir_a = tree_.name(a).dir;
  const uint32_t dir_b = tree_.name(b).dir;
  move_name(a, dir_b);
  move_name(b, dir_a);
  parent_changed(dir_a);
  parent_changed(dir_b);
  return true;
}

bool AccountsModel::exchange_mixed(const Operands& given) {
  const auto [name, dir, unused, unused_too] = given;
  if (!has_name(name) || !may_change(dir)) return false;
  const uint32_t from = tree_.name(name).dir;
  const uint32_t to = tree_.dir(dir).parent;
  if (tree_.is_at_or_below(from, dir)) return false;
  move_name(name, to);
  relocate(dir, from);
  parent_changed(from);
  parent_changed(to);
  return true;
}

// --- Handles ---------------------------------------------------------------------------------

bool AccountsModel::open(const Operands& given) {
  const auto [handle, name, unused, unused_too] = given;
  if (!has_name(name) || !tree_.is_fresh_handle(handle)) return false;
  record_of(name);
  tree_.add_handle(handle, tree_.name(name).file);
  return true;
}

bool AccountsModel::close(const Operands& given) {
  const uint32_t handle = given[0];
  if (!tree_.handles().contains(handle)) return false;
  File& file = tree_.file(tree_.file_behind(handle));
  tree_.remove_handle(handle);
  if (file.handles > 0) return false;
  accounts_->last_handle_closed(file.record);
  if (file.lost) lose_file(file);
  return true;
}

bool AccountsModel::open_nameless(const Operands& given) {
  const auto [handle, size, blocks, unused] = given;
  if (!tree_.is_fresh_handle(handle)) return false;
  const uint32_t number = tree_.add_file({size}, {blocks});
  tree_.add_handle(handle, number);
  File& file = tree_.file(number);
  file.recorded = true;
  stamp(file);
  accounts_->orphan_opened(file.record, ModelTree::stat_of(file));
  return true;
}

bool AccountsModel::link_open(const Operands& given) {
  const auto [name, handle, dir, unused] = given;
  if (!tree_.handles().contains(handle) || !has_dir(dir) || !tree_.is_fresh_name(name))
    return false;
  const uint32_t number = tree_.file_behind(handle);
  const File& file = tree_.file(number);
  if (file.lost) return false;
  // One whose names outside are all that it has is not followed: that is for an audit to find.
  if (file.names.empty() && file.external > 0) return false;
  name_file(name, number, dir);
  return true;
}

// --- What happens outside, and in the front end -----------------------------------------------

bool AccountsModel::link_outside(const Operands& given) {
  if (!has_name(given[0])) return false;
  const FileRecord& record = record_of(given[0]);
  if (!record.link) return false;  // an inode that is not followed yet is found out by an audit
  File& file = tree_.file_named(given[0]);
  ++file.external;
  stamp(file);
  observe(file, false);
  return true;
}

bool AccountsModel::unlink_outside(const Operands& given) {
  if (!has_name(given[0])) return false;
  const FileRecord& record = record_of(given[0]);
  File& file = tree_.file_named(given[0]);
  if (!record.link || file.external == 0) return false;
  --file.external;
  stamp(file);
  observe(file, false);
  return true;
}

bool AccountsModel::forget(const Operands& given) {
  if (!has_name(given[0])) return false;
  File& file = tree_.file_named(given[0]);
  if (file.handles == 0) file.recorded = false;
  return true;
}

}  // namespace tally::test
