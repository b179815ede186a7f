#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/unique_fd.hpp"

namespace tally::test {

/// Makes random changes below a directory: creates, writes, truncations, links, renames of files
/// and directories, deletions, of open files too. Remembers which names it made, so that most
/// changes succeed; deterministic from the seed.
class RandomChanges {
 public:
  RandomChanges(std::string directory, uint64_t seed);

  /// One change. Whether it succeeded: some fail rightly, such as removing a full directory.
  bool step();

  /// What the last step tried, for failure messages.
  [[nodiscard]] const std::string& last() const { return last_; }

  /// Closes the files held open.
  void close_all();

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }
  std::string& any_of(std::vector<std::string>& paths) { return paths[below(paths.size())]; }
  std::string new_path();
  [[nodiscard]] std::string full(const std::string& path) const { return directory_ + path; }

  bool create();
  bool make_directory();
  bool make_symlink();
  bool write();
  bool truncate();
  bool allocate();
  bool change_attributes();
  bool link();
  bool unlink();
  bool remove_directory();
  bool rename_file();
  bool rename_directory();
  bool exchange();
  bool hold_open();
  bool use_held();
  bool name_a_nameless_file();

  std::string directory_;
  std::mt19937_64 random_;
  std::vector<std::string> directories_{""};
  std::vector<std::string> files_;
  std::array<UniqueFd, 8> held_;
  uint64_t names_made_ = 0;
  std::string last_;
};

}  // namespace tally::test
