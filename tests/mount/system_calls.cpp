#include "tests/mount/system_calls.hpp"

#include <sys/stat.h>

#include <map>

namespace tally::test {

namespace {

constexpr uint32_t write_max_bytes = 20'000;
constexpr uint32_t offset_max_bytes = 80'000;
constexpr uint32_t sparse_max_bytes = 1 << 30;
constexpr uint32_t xattr_max_bytes = 3'000;

}  // namespace

struct SystemCalls::Call {
  CallForm form;
  bool (SystemCalls::*make)(const Operands& given);
};

std::span<const SystemCalls::Call> SystemCalls::calls() {
  using S = SystemCalls;
  static constexpr uint32_t at = offset_max_bytes;
  static constexpr uint32_t bytes = write_max_bytes;
  static constexpr Call table[] = {
      {{{"create", "nd#"}, true, 180, {bytes}}, &S::create},
      {{{"mknod", "nd#"}, true, 30, {5}}, &S::make_node},
      {{{"symlink", "nd#"}, true, 20, {200}}, &S::make_symlink},
      {{{"mkdir", "dd"}, true, 80, {}}, &S::make_directory},
      {{{"link", "nnd"}, true, 120, {}}, &S::link},
      {{{"unlink", "n"}, false, 140, {}}, &S::unlink},
      {{{"rmdir", "d"}, false, 50, {}}, &S::remove_directory},
      {{{"rename", "nd#"}, false, 90, {2}}, &S::rename},
      {{{"rename-onto", "nn"}, false, 10, {}}, &S::rename_onto},
      {{{"whiteout", "nnd"}, true, 20, {}}, &S::whiteout},
      {{{"overwrite", "nn"}, false, 60, {}}, &S::overwrite},
      {{{"exchange", "nn"}, false, 25, {}}, &S::exchange},
      {{{"exchange-mixed", "nd"}, false, 20, {}}, &S::exchange_mixed},
      {{{"exchange-dirs", "dd"}, false, 20, {}}, &S::exchange_directories},
      {{{"move-dir", "dd"}, false, 60, {}}, &S::move_directory},
      {{{"overwrite-dir", "dd"}, false, 20, {}}, &S::overwrite_directory},
      {{{"write", "n##"}, false, 160, {at, bytes}}, &S::write},
      {{{"append", "n#"}, false, 40, {bytes}}, &S::append},
      {{{"write-mapped", "n##"}, false, 30, {at, bytes}}, &S::write_mapped},
      {{{"truncate", "n#"}, false, 60, {at}}, &S::truncate},
      {{{"truncate-far", "n#"}, false, 10, {sparse_max_bytes}}, &S::truncate},
      {{{"open-truncating", "n"}, false, 25, {}}, &S::open_truncating},
      {{{"create-again", "n"}, false, 25, {}}, &S::create_again},
      {{{"allocate", "n###"}, false, 40, {5, at, bytes}}, &S::allocate},
      {{{"copy", "nn#"}, false, 30, {bytes}}, &S::copy},
      {{{"read", "n"}, false, 20, {}}, &S::read},
      {{{"chmod", "n#"}, false, 20, {64}}, &S::change_mode},
      {{{"chown", "n#"}, false, 15, {100}}, &S::change_owner},
      {{{"utimens", "n#"}, false, 15, {~0U}}, &S::change_times},
      {{{"chmod-dir", "d#"}, false, 10, {64}}, &S::change_directory_mode},
      {{{"setxattr", "n#"}, false, 20, {xattr_max_bytes}}, &S::set_xattr},
      {{{"removexattr", "n"}, false, 10, {}}, &S::remove_xattr},
      {{{"setxattr-dir", "d#"}, false, 10, {xattr_max_bytes}}, &S::set_directory_xattr},
      {{{"open", "hn"}, true, 60, {}}, &S::open},
      {{{"close", "h"}, false, 70, {}}, &S::close},
      {{{"write-open", "h##"}, false, 60, {at, bytes}}, &S::write_open},
      {{{"truncate-open", "h#"}, false, 20, {at}}, &S::truncate_open},
      {{{"allocate-open", "h###"}, false, 20, {5, at, bytes}}, &S::allocate_open},
      {{{"sync-open", "h"}, false, 3, {}}, &S::sync_open},
      {{{"open-nameless", "hd#"}, true, 25, {bytes}}, &S::open_nameless},
      {{{"link-open", "nhd"}, true, 35, {}}, &S::link_open},
      {{{"list", "d"}, false, 20, {}}, &S::list},
      // Dear, and noticed by the whole machine.
      {{{"drop-caches", ""}, false, 0, {}}, &S::drop_caches},
      {{{"remount", ""}, false, 1, {}}, &S::remount},
  };
  return table;
}

std::span<const CallForm> call_forms() {
  static const std::vector<CallForm> forms = [] {
    std::vector<CallForm> all;
    for (const auto& call : SystemCalls::calls())
      all.push_back(call.form);
    return all;
  }();
  return forms;
}

Vocabulary call_vocabulary() {
  static const std::vector<OperationForm> vocabulary = [] {
    std::vector<OperationForm> all;
    for (const CallForm& form : call_forms())
      all.push_back(form.form);
    return all;
  }();
  return vocabulary;
}

SystemCalls::SystemCalls(Place place) : place_(std::move(place)), tree_(1) {
  tree_.add_dir(ModelTree::root, ModelTree::none).shared = true;
  dir_leaves_.emplace_back();
  for (const std::string& leaf : place_.shared) {
    tree_.add_dir(tree_.fresh_dir(), ModelTree::root).shared = true;
    dir_leaves_.push_back(leaf);
  }
}

bool SystemCalls::apply(const Operation& operation) {
  return (this->*calls()[operation.kind].make)(operation.operands);
}

void SystemCalls::close_all() {
  while (!tree_.handles().empty())
    close({tree_.handles().numbers().back()});
}

int64_t SystemCalls::orphan_bytes() const {
  std::map<ino_t, int64_t> orphans;
  for (const uint32_t handle : tree_.handles().numbers()) {
    struct stat st{};
    if (::fstat(fds_[handle].get(), &st) == 0 && st.st_nlink == 0) orphans[st.st_ino] = st.st_size;
  }
  int64_t sum = 0;
  for (const auto& [ino, bytes] : orphans)
    sum += bytes;
  return sum;
}

// --- Paths -----------------------------------------------------------------------------------

std::string SystemCalls::path_of_dir(uint32_t dir) const {
  std::string path;
  for (; dir != ModelTree::root; dir = tree_.dir(dir).parent)
    path.insert(0, "/" + dir_leaves_[dir]);
  return place_.directory + path;
}

std::string SystemCalls::path_of(uint32_t name) const {
  return path_of_dir(tree_.name(name).dir) + "/" + name_leaves_[name];
}

/// A path that nothing else has ever had, below `dir`, for the name (n) or directory (d).
std::string SystemCalls::new_path(uint32_t dir, char letter, uint32_t number) {
  const uint32_t before = leaves_made_[{letter, number}]++;
  return path_of_dir(dir) + "/" + place_.prefix + letter + std::to_string(number) +
         (before == 0 ? "" : "." + std::to_string(before));
}

bool SystemCalls::may_change(uint32_t dir) const { return has_dir(dir) && !tree_.dir(dir).shared; }

}  // namespace tally::test
