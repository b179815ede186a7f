#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/unique_fd.hpp"
#include "tests/model/model_tree.hpp"
#include "tests/model/operation.hpp"

namespace tally::test {

/// How one system call, with what must be done around it, is written and chosen.
struct CallForm {
  OperationForm form;
  bool makes_first = false;             ///< its first operand is the number of something new
  uint32_t weight = 0;                  ///< how often it is chosen
  std::array<uint32_t, 3> limits = {};  ///< of its plain numbers, in their order
};

/// All calls, by their kind.
std::span<const CallForm> call_forms();
Vocabulary call_vocabulary();

/// Faults on purpose, to prove that they are found.
enum class CallFault {
  none,
  append_behind,  ///< what is appended goes to the lower file, behind the mount's back
};

/// Makes system calls below a directory of a mount: each operation is one call of the FUSE
/// contract, with the opens and closes around it. Remembers what is where, so that operations can
/// name things by numbers; calls that fail, as some rightly do, change nothing of that.
class SystemCalls {
 public:
  struct Place {
    std::string directory;                 ///< of the mount
    std::string lower;                     ///< the same in the lower filesystem
    std::string prefix = "";               ///< of all names: what several make don't collide
    std::vector<std::string> shared = {};  ///< directories there, which nobody moves or removes
    CallFault fault = CallFault::none;
  };

  explicit SystemCalls(Place place);

  /// Whether the call succeeded.
  bool apply(const Operation& operation);

  /// Closes the files that are held open.
  void close_all();

  /// Has the mount made anew on `remount`; without it nothing happens then.
  void set_remount(std::function<void()> remount) { remount_ = std::move(remount); }

  /// Bytes of the files held open that have no name any more.
  [[nodiscard]] int64_t orphan_bytes() const;

  [[nodiscard]] const ModelTree& tree() const { return tree_; }

 private:
  using Operands = std::array<uint32_t, Operation::operands_max>;
  struct Call;
  friend std::span<const CallForm> call_forms();
  static std::span<const Call> calls();

  // Names (system_calls_names.cpp).
  bool create(const Operands& given);
  bool make_node(const Operands& given);
  bool make_symlink(const Operands& given);
  bool make_directory(const Operands& given);
  bool link(const Operands& given);
  bool unlink(const Operands& given);
  bool remove_directory(const Operands& given);
  bool rename(const Operands& given);
  bool rename_onto(const Operands& given);
  bool whiteout(const Operands& given);
  bool overwrite(const Operands& given);
  bool exchange(const Operands& given);
  bool exchange_mixed(const Operands& given);
  bool exchange_directories(const Operands& given);
  bool move_directory(const Operands& given);
  bool overwrite_directory(const Operands& given);
  bool open_nameless(const Operands& given);
  bool link_open(const Operands& given);
  bool list(const Operands& given);
  bool drop_caches(const Operands& given);
  bool remount(const Operands& given);

  // Data and attributes (system_calls_data.cpp).
  bool write(const Operands& given);
  bool append(const Operands& given);
  bool write_mapped(const Operands& given);
  bool truncate(const Operands& given);
  bool open_truncating(const Operands& given);
  bool create_again(const Operands& given);
  bool allocate(const Operands& given);
  bool copy(const Operands& given);
  bool read(const Operands& given);
  bool change_mode(const Operands& given);
  bool change_owner(const Operands& given);
  bool change_times(const Operands& given);
  bool change_directory_mode(const Operands& given);
  bool set_xattr(const Operands& given);
  bool remove_xattr(const Operands& given);
  bool set_directory_xattr(const Operands& given);
  bool open(const Operands& given);
  bool close(const Operands& given);
  bool write_open(const Operands& given);
  bool truncate_open(const Operands& given);
  bool allocate_open(const Operands& given);
  bool sync_open(const Operands& given);

  [[nodiscard]] std::string path_of_dir(uint32_t dir) const;
  [[nodiscard]] std::string path_of(uint32_t name) const;
  std::string new_path(uint32_t dir, char letter, uint32_t number);
  UniqueFd open_file(const Operands& given, int flags);
  bool has_name(uint32_t name) const { return tree_.names().contains(name); }
  bool has_dir(uint32_t dir) const { return tree_.dirs().contains(dir); }
  bool has_handle(uint32_t handle) const { return tree_.handles().contains(handle); }
  [[nodiscard]] bool may_change(uint32_t dir) const;
  void name_file(uint32_t name, const std::string& path, uint32_t file, uint32_t dir);

  const Place place_;
  ModelTree tree_;
  // The last components of paths, and what is open, by their numbers.
  std::vector<std::string> name_leaves_;
  std::vector<std::string> dir_leaves_;
  std::vector<UniqueFd> fds_;
  std::map<std::pair<char, uint32_t>, uint32_t> leaves_made_;
  std::function<void()> remount_;
};

}  // namespace tally::test
