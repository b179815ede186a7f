#pragma once

#include <deque>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/accounts.hpp"
#include "core/recount.hpp"
#include "tests/model/model_tree.hpp"
#include "tests/model/operation.hpp"

namespace tally::test {

/// The operations of AccountsModel, in the order of accounts_vocabulary.
enum class Change : uint8_t {
  create,          // name, directory, size, blocks
  create_reused,   // the same, with the inode number of a file that went behind our back
  link,            // new name, name, directory
  unlink,          // name
  rename,          // name, directory: to a name that is free there
  overwrite,       // name, name
  exchange,        // name, name
  exchange_mixed,  // name, directory
  exchange_dirs,   // directory, directory
  mkdir,           // directory, parent
  rmdir,           // directory
  remove_behind,   // directory: all in it is removed below, and then itself by us
  move_dir,        // directory, new parent
  overwrite_dir,   // directory, an empty directory
  write,           // name, size, blocks
  truncate,        // name, size
  move_blocks,     // name, blocks: as when ext4 allocates late
  chmod,           // name
  chmod_dir,       // directory
  set_future,      // name, hours: its ctime is so far in the future
  set_future_dir,  // directory, hours
  grow_dir,        // directory, blocks
  open,            // handle, name
  close,           // handle
  write_open,      // handle, size, blocks
  open_nameless,   // handle, size, blocks: O_TMPFILE
  link_open,       // name, handle, directory
  link_outside,    // name: of its inode outside of the tree there is one name more
  unlink_outside,  // name: one less
  forget,          // name: the front end forgets its inode
  scan_again,
  // Behind our back, on the lower filesystem: the accounts are not told.
  behind_create,        // name, directory, size, blocks
  behind_link,          // new name, name, directory
  behind_unlink,        // name
  behind_rename,        // name, directory
  behind_write,         // name, size, blocks
  behind_mkdir,         // directory, parent
  behind_move_dir,      // directory, new parent
  behind_remove_dir,    // directory, with all in it
  behind_link_outside,  // name
  audit,                // everything is recounted, which makes good all of these
};

extern const Vocabulary accounts_vocabulary;

/// How many directories and hard-linked inodes there is room for.
struct ModelRoom {
  uint32_t dirs = 4096;
  uint32_t links = 4096;

  /// So little that some inodes can't be followed: what is wrong then has to be suspect.
  [[nodiscard]] bool is_tight() const { return links < 1000; }
};

/// Faults on purpose, to prove that they are found.
enum class Fault {
  none,
  overwrite_not_told,  ///< of a file with other names, that it was renamed over
  growth_not_told,     ///< of writes through a handle to a file without a name, then linked
};

/// A made-up filesystem that does operations and tells an Accounts of each the way the front end
/// does. Deterministic: what it does is in the operations alone.
class AccountsModel {
 public:
  explicit AccountsModel(const ModelRoom& room, Fault fault = Fault::none);

  /// One of several that work on one Accounts at the same time: beside its own directories it has
  /// those `shared`, the root first and each after its parent, which all others have too.
  struct SharedDir {
    DirIndex index;
    uint32_t parent;  // its place among the shared ones
  };
  AccountsModel(Accounts& accounts, std::span<const SharedDir> shared, uint64_t first_ino);

  AccountsModel(const AccountsModel&) = delete;
  AccountsModel& operator=(const AccountsModel&) = delete;

  /// Whether the operation did anything: its things may be missing.
  bool apply(const Operation& operation);

  /// What the last operation should have shown at once and did not: rgen grows in every directory
  /// that has the change below it. Empty if all is well. Cheap.
  [[nodiscard]] std::string check_touched();

  /// Recounts everything. Empty if all is equal, else what differs first.
  [[nodiscard]] std::string difference();

  /// Removes all there is, by operations; then nothing may be left in the accounts.
  [[nodiscard]] std::string remove_everything();

  [[nodiscard]] const ModelTree& tree() const { return tree_; }
  [[nodiscard]] ModelTree& tree() { return tree_; }
  [[nodiscard]] Accounts& accounts() { return *accounts_; }
  [[nodiscard]] const ModelRoom& room() const { return room_; }
  /// Something has changed behind the accounts' back, and no audit has been made since.
  [[nodiscard]] bool is_disturbed() const { return is_disturbed_; }
  [[nodiscard]] bool is_alone() const { return own_accounts_ != nullptr; }
  [[nodiscard]] uint64_t steps_done() const { return steps_done_; }

  /// No ctime that the accounts were told is later.
  [[nodiscard]] TimeNs latest_ns() const;

 private:
  using Operands = std::array<uint32_t, Operation::operands_max>;
  using File = ModelTree::File;
  using Dir = ModelTree::Dir;

  static constexpr std::size_t releases_delayed = 16;

  // Names (accounts_model_names.cpp).
  bool create(const Operands& given);
  bool create_reused(const Operands& given);
  bool link(const Operands& given);
  bool unlink(const Operands& given);
  bool rename(const Operands& given);
  bool overwrite(const Operands& given);
  bool exchange(const Operands& given);
  bool exchange_mixed(const Operands& given);
  bool open(const Operands& given);
  bool close(const Operands& given);
  bool open_nameless(const Operands& given);
  bool link_open(const Operands& given);
  bool link_outside(const Operands& given);
  bool unlink_outside(const Operands& given);
  bool forget(const Operands& given);
  uint32_t make_file(const Operands& given);
  void name_file(uint32_t name, uint32_t file, uint32_t dir);
  void drop_name(uint32_t name, bool told = true);
  void move_name(uint32_t name, uint32_t to);

  // Directories (accounts_model_dirs.cpp).
  bool mkdir(const Operands& given);
  bool rmdir(const Operands& given);
  bool remove_behind(const Operands& given);
  bool move_dir(const Operands& given);
  bool overwrite_dir(const Operands& given);
  bool exchange_dirs(const Operands& given);
  bool chmod_dir(const Operands& given);
  bool set_future_dir(const Operands& given);
  bool grow_dir(const Operands& given);
  bool scan_again(const Operands& given);
  void scan_names();
  void insert_below(uint32_t dir);
  void drop_dir(uint32_t dir);
  void release_late(DirIndex dir);
  void lose_file(File& file);
  void relocate(uint32_t dir, uint32_t to);
  void parent_changed(uint32_t dir);
  void now_suspect(uint32_t dir);
  void now_suspect_below(uint32_t dir);

  // Behind our back (accounts_model_behind.cpp).
  bool behind_create(const Operands& given);
  bool behind_link(const Operands& given);
  bool behind_unlink(const Operands& given);
  bool behind_rename(const Operands& given);
  bool behind_write(const Operands& given);
  bool behind_mkdir(const Operands& given);
  bool behind_move_dir(const Operands& given);
  bool behind_remove_dir(const Operands& given);
  bool behind_link_outside(const Operands& given);
  bool audit(const Operands& given);
  std::vector<uint32_t> take_out(uint32_t top);
  void changed_behind(uint32_t dir);
  void look_up(const Operation& operation);
  void look_up(uint32_t dir);
  struct Listing;
  void walk();
  void recount(uint32_t dir, const std::vector<uint32_t>& names,
               const std::vector<uint32_t>& children);
  void meet_name(Recount& recount, uint32_t name);
  void meet_directory(Recount& recount, uint32_t parent, uint32_t child);

  // Data and attributes (accounts_model.cpp).
  bool write(const Operands& given);
  bool truncate(const Operands& given);
  bool move_blocks(const Operands& given);
  bool chmod(const Operands& given);
  bool set_future(const Operands& given);
  bool write_open(const Operands& given);
  void observe(File& file, bool mutated);
  void observe(const Dir& dir, bool mutated);

  FileRecord& record_of(uint32_t name);
  void touch(uint32_t dir) { touched_.push_back(dir); }
  void touch_names(const File& file);
  template <class Inode>
  void stamp(Inode& inode);
  template <class Inode>
  void stamp_future(Inode& inode, uint32_t hours);
  [[nodiscard]] bool has_name(uint32_t name) const { return tree_.names().contains(name); }
  [[nodiscard]] bool has_dir(uint32_t dir) const { return tree_.dirs().contains(dir); }
  /// A directory of ours that is not the root.
  [[nodiscard]] bool may_change(uint32_t dir) const;

  const ModelRoom room_;
  const Fault fault_ = Fault::none;
  std::unique_ptr<Accounts> own_accounts_;
  Accounts* accounts_;
  ModelTree tree_;
  std::deque<DirIndex> to_release_;  // removed, and still known to the front end
  uint32_t nodes_lost_ = 0;          // see DirTree::give_back
  bool has_unsure_nodes_ = false;    // nodes of which it is not known whether they are lost
  std::vector<DirIndex> gone_;       // went behind our back, and the front end does not know yet
  std::vector<std::pair<FileKey, DirIndex>> missing_;  // not met where they are counted
  bool is_disturbed_ = false;  // something went on behind our back: counters mean nothing
  std::vector<uint32_t> touched_;
  std::string refused_;  // what check_touched() reports
  TimeNs clock_ns_ = 1'700'000'000'000'000'000;
  bool has_future_times_ = false;
  bool has_lost_files_ = false;
  uint64_t steps_done_ = 0;
};

}  // namespace tally::test
