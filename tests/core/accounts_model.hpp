#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/accounts.hpp"

namespace tally::test {

/// A made-up filesystem in memory that does random operations, tells an Accounts of each the way
/// the front end does, and compares every counter of every directory with a naive recount.
class AccountsModel {
 public:
  /// `links_max`: how many hard-linked inodes the Accounts has room for.
  explicit AccountsModel(uint64_t seed, uint32_t links_max = 4096);
  ~AccountsModel();

  /// One random operation; its description is the last line of history().
  void step();

  /// Recounts everything. Empty if all is equal, else what differs first.
  [[nodiscard]] std::string difference() { return difference(Suspects::are_wrong); }

  /// As difference(), but what says that it is suspect, as its ancestors do, may differ.
  [[nodiscard]] std::string unsuspected_difference() { return difference(Suspects::may_be_wrong); }

  [[nodiscard]] uint64_t steps_done() const { return steps_done_; }
  [[nodiscard]] std::string last_operation() const { return last_operation_; }

 private:
  struct File;
  struct Dir;
  struct Place;  // a directory and a name in it
  struct Recount;
  enum class Suspects { are_wrong, may_be_wrong };
  using FilePtr = std::shared_ptr<File>;

  uint64_t pick(uint64_t bound) {
    return std::uniform_int_distribution<uint64_t>(0, bound - 1)(random_);
  }
  Dir& any_dir();
  Place any_place();
  Place any_file();
  TimeNs tick();
  void note(const std::string& what) { last_operation_ = what; }

  [[nodiscard]] FileStat stat_of(const File& file) const;
  FileStat stat_of(const Dir& dir) const;
  FileRecord& record_of(const Place& place);
  void parent_changed(Dir& dir);
  void grow(File& file);

  void create();
  void write();
  void chmod();
  void link();
  void unlink();
  void open_close();
  void tmpfile();
  void rename();
  void exchange();
  void make_dir();
  void remove_dir();
  void external_link();
  void forget_record();
  void scan_again();

  void drop_name(Dir& dir, const std::string& name);
  void rename_file(const Place& from, const Place& to);
  void rename_dir(const Place& from, const Place& to);
  void move_child_dir(Dir& child, Dir& to, const std::string& name);
  void insert_below(Dir& dir);
  static bool is_below(const Dir* dir, const Dir* ancestor);

  std::string difference(Suspects suspects);
  Recount recount(Dir& dir, Suspects suspects, std::string& found);

  std::mt19937_64 random_;
  std::unique_ptr<Accounts> accounts_;
  std::vector<std::unique_ptr<Dir>>
      all_dirs_;  // also removed ones: their indices are released late
  std::vector<Dir*> dirs_;
  std::vector<FilePtr> open_files_;
  std::map<DirIndex, TimeNs> rctime_seen_;
  uint64_t next_ino_ = 100;
  uint64_t next_name_ = 0;
  TimeNs clock_ns_ = 1'700'000'000'000'000'000;
  uint64_t steps_done_ = 0;
  std::string last_operation_;
};

}  // namespace tally::test
