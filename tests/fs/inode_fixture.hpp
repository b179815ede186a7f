#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/dir_tree.hpp"
#include "fs/inode_table.hpp"
#include "tests/temp_folder.hpp"

namespace tally::test {

/// Runs `work` on a thread of its own that lacks a capability (a CAP_… number) in its effective
/// set.
void run_without_capability(int capability, const std::function<void()>& work);

/// Whether the calling thread may open inodes by handle, so that the table does.
bool may_open_by_handle();

/// An inode table over a temporary folder.
class InodeFixture {
 public:
  enum class Reopen { by_handle, by_name };

  InodeFixture(uint32_t descriptors, uint32_t capacity = 10'000, Reopen reopen = Reopen::by_handle);

  /// What a LOOKUP handler does, without counting the lookup.
  Result<fs::PinnedInode> find(const fs::PinnedInode& parent, const std::string& name);
  Result<fs::PinnedInode> find(const std::string& name) { return find(root(), name); }

  /// find() and add_lookup(); throws on failure. Returns the node id.
  fs::NodeId lookup(const fs::PinnedInode& parent, const std::string& name);
  fs::NodeId lookup(const std::string& name) { return lookup(root(), name); }

  /// What an UNLINK handler does; throws on failure.
  void unlink(const std::string& name);

  /// Closes every descriptor that may be closed, by claiming the whole budget for a moment.
  void evict_all();

  fs::PinnedInode root() { return table->pin(1).value(); }
  [[nodiscard]] std::string path(const std::string& name) const {
    return folder.path() + "/" + name;
  }
  void create_file(const std::string& name) const;
  void create_directory(const std::string& name) const;

  TempFolder folder{"inodes"};
  DescriptorBudget budget;
  DirTree tree{1000};
  std::unique_ptr<fs::InodeTable> table;
};

}  // namespace tally::test
