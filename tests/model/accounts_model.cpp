#include "tests/model/accounts_model.hpp"

#include <algorithm>
#include <utility>

#include "tests/model/accounts_check.hpp"

namespace tally::test {

namespace {

constexpr OperationForm forms[] = {
    {"create", "nd##"},
    {"create-reused", "nd##"},
    {"link", "nnd"},
    {"unlink", "n"},
    {"rename", "nd"},
    {"overwrite", "nn"},
    {"exchange", "nn"},
    {"exchange-mixed", "nd"},
    {"exchange-dirs", "dd"},
    {"mkdir", "dd"},
    {"rmdir", "d"},
    {"remove-behind", "d"},
    {"move-dir", "dd"},
    {"overwrite-dir", "dd"},
    {"write", "n##"},
    {"truncate", "n#"},
    {"move-blocks", "n#"},
    {"chmod", "n"},
    {"chmod-dir", "d"},
    {"set-future", "n#"},
    {"set-future-dir", "d#"},
    {"grow-dir", "d#"},
    {"open", "hn"},
    {"close", "h"},
    {"write-open", "h##"},
    {"open-nameless", "h##"},
    {"link-open", "nhd"},
    {"link-outside", "n"},
    {"unlink-outside", "n"},
    {"forget", "n"},
    {"scan-again", ""},
    {"behind-create", "nd##"},
    {"behind-link", "nnd"},
    {"behind-unlink", "n"},
    {"behind-rename", "nd"},
    {"behind-write", "n##"},
    {"behind-mkdir", "dd"},
    {"behind-move-dir", "dd"},
    {"behind-remove-dir", "d"},
    {"behind-link-outside", "n"},
    {"audit", ""},
};
static_assert(std::size(forms) == static_cast<std::size_t>(Change::audit) + 1);

constexpr uint64_t first_ino_alone = 100;

}  // namespace

const Vocabulary accounts_vocabulary = forms;

AccountsModel::AccountsModel(const ModelRoom& room, Fault fault)
    : room_(room),
      fault_(fault),
      own_accounts_(std::make_unique<Accounts>(room.dirs, room.links)),
      accounts_(own_accounts_.get()),
      tree_(first_ino_alone) {
  Dir& root = tree_.add_dir(ModelTree::root, ModelTree::none);
  root.blocks = {8};
  stamp(root);
  root.index = accounts_->tree().insert({}, ModelTree::stat_of(root)).value();
}

AccountsModel::AccountsModel(Accounts& accounts, std::span<const SharedDir> shared,
                             uint64_t first_ino)
    : accounts_(&accounts), tree_(first_ino) {
  for (uint32_t i = 0; i < shared.size(); ++i) {
    Dir& dir = tree_.add_dir(i, i == ModelTree::root ? ModelTree::none : shared[i].parent);
    dir.index = shared[i].index;
    dir.shared = true;
  }
}

bool AccountsModel::apply(const Operation& operation) {
  using Handler = bool (AccountsModel::*)(const Operands&);
  using M = AccountsModel;
  static constexpr Handler handlers[] = {
      &M::create,
      &M::create_reused,
      &M::link,
      &M::unlink,
      &M::rename,
      &M::overwrite,
      &M::exchange,
      &M::exchange_mixed,
      &M::exchange_dirs,
      &M::mkdir,
      &M::rmdir,
      &M::remove_behind,
      &M::move_dir,
      &M::overwrite_dir,
      &M::write,
      &M::truncate,
      &M::move_blocks,
      &M::chmod,
      &M::chmod_dir,
      &M::set_future,
      &M::set_future_dir,
      &M::grow_dir,
      &M::open,
      &M::close,
      &M::write_open,
      &M::open_nameless,
      &M::link_open,
      &M::link_outside,
      &M::unlink_outside,
      &M::forget,
      &M::scan_again,
      &M::behind_create,
      &M::behind_link,
      &M::behind_unlink,
      &M::behind_rename,
      &M::behind_write,
      &M::behind_mkdir,
      &M::behind_move_dir,
      &M::behind_remove_dir,
      &M::behind_link_outside,
      &M::audit,
  };
  static_assert(std::size(handlers) == std::size(forms));
  touched_.clear();
  ++steps_done_;
  if (is_disturbed_) look_up(operation);
  return (this->*handlers[operation.kind])(operation.operands);
}

// --- What the front end knows ----------------------------------------------------------------

FileRecord& AccountsModel::record_of(uint32_t name) {
  File& file = tree_.file_named(name);
  if (std::exchange(file.recorded, true)) return file.record;
  file.record = {};
  if (const DirIndex dir = tree_.dir_of(name).index)
    accounts_->file_found(file.record, dir, ModelTree::stat_of(file));
  return file.record;
}

template <class Inode>
void AccountsModel::stamp(Inode& inode) {
  inode.ctime_ns = inode.counted_ctime_ns = clock_ns_ += 1'000;
}

template <class Inode>
void AccountsModel::stamp_future(Inode& inode, uint32_t hours) {
  constexpr TimeNs hour_ns = 3'600'000'000'000;
  const TimeNs current_ns = now_ns();
  inode.ctime_ns = current_ns + (1 + TimeNs{hours}) * hour_ns;
  inode.counted_ctime_ns = current_ns;
  has_future_times_ = true;
}

template void AccountsModel::stamp(File& file);
template void AccountsModel::stamp(Dir& dir);
template void AccountsModel::stamp_future(Dir& dir, uint32_t hours);

TimeNs AccountsModel::latest_ns() const { return has_future_times_ ? now_ns() : clock_ns_; }

bool AccountsModel::may_change(uint32_t dir) const {
  return has_dir(dir) && dir != ModelTree::root && !tree_.dir(dir).shared;
}

void AccountsModel::touch_names(const File& file) {
  for (const uint32_t name : file.names)
    touch(tree_.name(name).dir);
}

// --- Data and attributes ---------------------------------------------------------------------

void AccountsModel::observe(File& file, bool mutated) {
  accounts_->file_observed(file.record, ModelTree::stat_of(file), mutated);
  if (mutated && !file.lost) touch_names(file);
}

bool AccountsModel::write(const Operands& given) {
  const auto [name, size, blocks, unused] = given;
  if (!has_name(name)) return false;
  record_of(name);
  File& file = tree_.file_named(name);
  // Sparse, preallocated, compressed: blocks need not follow the size.
  file.size = {size};
  file.blocks = {blocks};
  stamp(file);
  observe(file, true);
  return true;
}

bool AccountsModel::truncate(const Operands& given) {
  const auto [name, size, unused, unused_too] = given;
  if (!has_name(name)) return false;
  record_of(name);
  File& file = tree_.file_named(name);
  file.size = {size};
  file.blocks = {std::min<int64_t>(file.blocks.count, 8 * ((int64_t{size} + 4095) / 4096))};
  stamp(file);
  observe(file, true);
  return true;
}

bool AccountsModel::move_blocks(const Operands& given) {
  const auto [name, blocks, unused, unused_too] = given;
  if (!has_name(name)) return false;
  record_of(name);
  File& file = tree_.file_named(name);
  file.blocks = {blocks};
  observe(file, false);
  return true;
}

bool AccountsModel::chmod(const Operands& given) {
  if (!has_name(given[0])) return false;
  record_of(given[0]);
  File& file = tree_.file_named(given[0]);
  stamp(file);
  observe(file, true);
  return true;
}

bool AccountsModel::set_future(const Operands& given) {
  if (!has_name(given[0])) return false;
  record_of(given[0]);
  File& file = tree_.file_named(given[0]);
  stamp_future(file, given[1]);
  observe(file, true);
  return true;
}

bool AccountsModel::write_open(const Operands& given) {
  const auto [handle, size, blocks, unused] = given;
  if (!tree_.handles().contains(handle)) return false;
  File& file = tree_.file(tree_.file_behind(handle));
  file.size = {size};
  file.blocks = {blocks};
  stamp(file);
  if (fault_ == Fault::growth_not_told && file.names.empty()) return false;
  observe(file, true);
  return true;
}

// --- Checks ----------------------------------------------------------------------------------

std::string AccountsModel::check_touched() {
  if (!refused_.empty()) return refused_;
  if (is_disturbed_) return {};
  for (uint32_t number : touched_) {
    if (!has_dir(number)) continue;
    for (; number != ModelTree::none; number = tree_.dir(number).parent) {
      Dir& dir = tree_.dir(number);
      if (std::exchange(dir.checked_step, steps_done_) == steps_done_) break;
      const uint64_t rgen = accounts_->tree().node(dir.index).rgen;
      const bool may_lag = room_.is_tight() && accounts_->tree().has_suspects(dir.index);
      if (rgen <= dir.rgen_seen && !may_lag)
        return "d" + std::to_string(number) + ": rgen has not grown";
      dir.rgen_seen = rgen;
    }
  }
  return {};
}

std::string AccountsModel::difference() {
  if (is_disturbed_) return {};
  ModelTree* const trees[] = {&tree_};
  const Strictness strictness =
      room_.is_tight() ? Strictness::unless_suspect : Strictness::everything;
  std::string found =
      first_difference(*accounts_, trees, {.strictness = strictness, .latest_ns = latest_ns()});
  const std::size_t nodes = tree_.dirs().size() + to_release_.size() + nodes_lost_;
  if (found.empty() && !has_unsure_nodes_ && accounts_->tree().nodes_held() != nodes)
    found = "nodes held are " + std::to_string(accounts_->tree().nodes_held()) + ", should be " +
            std::to_string(nodes);
  return found;
}

std::string AccountsModel::remove_everything() {
  if (is_disturbed_) {
    audit({});
    if (std::string found = difference(); !found.empty()) return "after a last audit: " + found;
  }
  while (!tree_.handles().empty())
    close({tree_.handles().numbers().back()});
  while (!tree_.names().empty())
    unlink({tree_.names().numbers().back()});
  while (tree_.dirs().size() > 1) {
    const std::vector<uint32_t> dirs = tree_.dirs().numbers();
    for (const uint32_t dir : dirs)
      rmdir({dir});
  }
  std::string found = difference();
  // Links of what went behind our back stay until the inode number is met again.
  if (found.empty() && !has_lost_files_ && accounts_->links().size() != 0)
    found = std::to_string(accounts_->links().size()) + " hard-linked inodes are left of none";
  return found.empty() ? found : "after all was removed: " + found;
}

}  // namespace tally::test
