#pragma once

#include <cstdint>
#include <vector>

#include "core/accounts.hpp"
#include "tests/model/number_set.hpp"

namespace tally::test {

/// A made-up filesystem in memory, and beside each inode what a front end keeps of it for Accounts.
/// Files, names, directories and handles are found by their numbers, which never repeat.
class ModelTree {
 public:
  static constexpr uint32_t none = ~0U;
  static constexpr uint32_t root = 0;

  struct File {
    uint64_t ino = 0;
    Bytes size = {};
    Blocks blocks = {};
    TimeNs ctime_ns = 0;
    TimeNs counted_ctime_ns = 0;       ///< ctime, or when it was set if that is in the future
    std::vector<uint32_t> names = {};  ///< in the tree
    uint32_t external = 0;             ///< names outside of it
    uint32_t handles = 0;
    FileRecord record = {};
    bool recorded = false;  ///< whether `record` is in use, as the slot of a cached inode would be
    bool lost = false;      ///< its names went behind the accounts' back
  };

  struct Name {
    uint32_t file = none;
    uint32_t dir = none;
  };

  struct Dir {
    uint64_t ino = 0;
    Blocks blocks = {};
    TimeNs ctime_ns = 0;
    TimeNs counted_ctime_ns = 0;
    uint32_t parent = none;
    uint32_t files = 0;
    uint32_t subdirs = 0;
    DirIndex index = {};
    bool shared = false;  ///< several threads have it: none changes the directory itself
    // What has to be suspect: what is in it, something below.
    bool doubt_own = false;
    bool doubt_below = false;
    // What was seen at the last check.
    TimeNs rctime_seen_ns = 0;
    uint64_t rgen_seen = 0;
    uint64_t checked_step = 0;

    [[nodiscard]] bool is_suspect() const { return doubt_own || doubt_below; }
  };

  /// Inodes are numbered from `first_ino`.
  explicit ModelTree(uint64_t first_ino) : next_ino_(first_ino) {}

  [[nodiscard]] File& file(uint32_t number) { return files_[number]; }
  [[nodiscard]] const File& file(uint32_t number) const { return files_[number]; }
  [[nodiscard]] Dir& dir(uint32_t number) { return dirs_[number]; }
  [[nodiscard]] const Dir& dir(uint32_t number) const { return dirs_[number]; }
  [[nodiscard]] const Name& name(uint32_t number) const { return names_[number]; }
  [[nodiscard]] File& file_named(uint32_t name) { return files_[names_[name].file]; }
  [[nodiscard]] Dir& dir_of(uint32_t name) { return dirs_[names_[name].dir]; }
  /// Of a handle that is open.
  [[nodiscard]] uint32_t file_behind(uint32_t handle) const { return handles_[handle]; }

  [[nodiscard]] const NumberSet& names() const { return live_names_; }
  [[nodiscard]] const NumberSet& dirs() const { return live_dirs_; }
  [[nodiscard]] const NumberSet& handles() const { return live_handles_; }
  /// Files that have a name in the tree.
  [[nodiscard]] const NumberSet& named_files() const { return named_files_; }

  // Numbers that were never used.
  [[nodiscard]] uint32_t fresh_name() const { return static_cast<uint32_t>(names_.size()); }
  [[nodiscard]] uint32_t fresh_dir() const { return static_cast<uint32_t>(dirs_.size()); }
  [[nodiscard]] uint32_t fresh_handle() const { return static_cast<uint32_t>(handles_.size()); }
  [[nodiscard]] bool is_fresh_name(uint32_t name) const;
  [[nodiscard]] bool is_fresh_dir(uint32_t dir) const;
  [[nodiscard]] bool is_fresh_handle(uint32_t handle) const;

  uint32_t add_file(Bytes size, Blocks blocks);
  void add_name(uint32_t name, uint32_t file, uint32_t dir);
  void remove_name(uint32_t name);
  void move_name(uint32_t name, uint32_t to);
  Dir& add_dir(uint32_t dir, uint32_t parent);
  void remove_dir(uint32_t dir);
  void move_dir(uint32_t dir, uint32_t to);
  void add_handle(uint32_t handle, uint32_t file);
  void remove_handle(uint32_t handle);

  [[nodiscard]] bool is_at_or_below(uint32_t dir, uint32_t ancestor) const;
  [[nodiscard]] bool is_empty(uint32_t dir) const {
    return dirs_[dir].files == 0 && dirs_[dir].subdirs == 0;
  }

  /// Inode numbers that are free again although the accounts were not told.
  std::vector<uint64_t> lost_inos;

  [[nodiscard]] static FileStat stat_of(const File& file);
  [[nodiscard]] static FileStat stat_of(const Dir& dir);

 private:
  std::vector<File> files_;
  std::vector<Name> names_;
  std::vector<Dir> dirs_;
  std::vector<uint32_t> handles_;
  NumberSet live_names_;
  NumberSet live_dirs_;
  NumberSet live_handles_;
  NumberSet named_files_;
  uint64_t next_ino_;
};

}  // namespace tally::test
