#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "fs/filesystem.hpp"

namespace tally::test {

/// Makes random requests to a Filesystem, as a kernel would, that change names and files below its
/// root: those that were there from the beginning and those that it made. Deterministic from the
/// seed. For one thread, which becomes other users meanwhile
/// (FilesystemFixture::on_request_thread).
class RandomRequests {
 public:
  /// `folder`: the path of the lower directory, to see what is there.
  RandomRequests(fs::Filesystem& filesystem, const std::string& folder, uint64_t seed);

  /// Forgets all that was looked up.
  ~RandomRequests();
  RandomRequests(const RandomRequests&) = delete;
  RandomRequests& operator=(const RandomRequests&) = delete;

  /// One change. Some fail rightly.
  void step();

  /// What the last steps did, for failure messages.
  [[nodiscard]] std::string log() const;

 private:
  struct Parent {
    fs::NodeId node;
    std::string name;
  };

  uint64_t below(uint64_t limit) { return random_() % limit; }
  std::string any_of(const std::vector<std::string>& paths);
  std::string new_path();
  fs::NodeId find(const std::string& path);
  Parent parent_of(const std::string& path);
  void forget_some();

  void create();
  void write();
  void truncate();
  void unlink();
  void make_directory();
  void remove_directory();
  void rename();
  void link();

  fs::Filesystem& filesystem_;
  const fs::Caller caller_;
  std::mt19937_64 random_;
  std::vector<std::string> directories_{""};
  std::vector<std::string> files_;
  std::vector<fs::NodeId> looked_up_;
  std::vector<std::string> log_;
  uint64_t names_made_ = 0;
};

}  // namespace tally::test
