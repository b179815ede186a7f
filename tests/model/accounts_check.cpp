#include "tests/model/accounts_check.hpp"

#include <algorithm>
#include <vector>

namespace tally::test {

namespace {

struct Sums {
  int64_t bytes = 0;
  int64_t disk = 0;
  int64_t unique = 0;
  int64_t rfiles = 0;
  int64_t rsubdirs = 0;
  int64_t files = 0;
  int64_t subdirs = 0;
  TimeNs ctime_ns = 0;
  std::size_t names_below = 0;  // of the file that is being added
};

/// Directories' sums by their numbers.
class Recount {
 public:
  /// `with_shared`: begins anew. Otherwise what the trees before have below shared directories
  /// stays in these, and only there.
  void add(const ModelTree& tree, bool with_shared) {
    sums_.resize(std::max<std::size_t>(sums_.size(), tree.fresh_dir()));
    for (const uint32_t dir : tree.dirs().numbers())
      if (with_shared || !tree.dir(dir).shared) sums_[dir] = {};
    for (const uint32_t dir : tree.dirs().numbers())
      if (with_shared || !tree.dir(dir).shared) add_dir(tree, dir);
    for (const uint32_t file : tree.named_files().numbers())
      add_file(tree, tree.file(file));
  }

  [[nodiscard]] const Sums& of(uint32_t dir) const { return sums_[dir]; }

 private:
  void add_dir(const ModelTree& tree, uint32_t number) {
    const ModelTree::Dir& dir = tree.dir(number);
    if (dir.parent != ModelTree::none) ++sums_[dir.parent].subdirs;
    for (uint32_t above = number; above != ModelTree::none; above = tree.dir(above).parent) {
      Sums& sums = sums_[above];
      sums.disk += dir.blocks.count;
      sums.unique += dir.blocks.count;
      sums.ctime_ns = std::max(sums.ctime_ns, dir.counted_ctime_ns);
      if (above != number) ++sums.rsubdirs;
    }
  }

  void add_file(const ModelTree& tree, const ModelTree::File& file) {
    met_.clear();
    for (const uint32_t name : file.names) {
      ++sums_[tree.name(name).dir].files;
      for (uint32_t dir = tree.name(name).dir; dir != ModelTree::none; dir = tree.dir(dir).parent)
        if (sums_[dir].names_below++ == 0) met_.push_back(dir);
    }
    for (const uint32_t dir : met_) {
      Sums& sums = sums_[dir];
      sums.bytes += file.size.count;
      sums.disk += file.blocks.count;
      if (sums.names_below == file.names.size() + file.external) sums.unique += file.blocks.count;
      sums.rfiles += 1;
      sums.ctime_ns = std::max(sums.ctime_ns, file.counted_ctime_ns);
      sums.names_below = 0;
    }
  }

  std::vector<Sums> sums_;
  std::vector<uint32_t> met_;
};

class Comparison {
 public:
  Comparison(Accounts& accounts, const CheckSettings& settings)
      : accounts_(accounts), settings_(settings) {}

  void compare(ModelTree& tree, uint32_t number, const Sums& sums) {
    ModelTree::Dir& dir = tree.dir(number);
    number_ = number;
    const DirCounters counted = accounts_.tree().counters(dir.index);
    if (settings_.strictness == Strictness::everything) {
      expect("suspect", dir.is_suspect() ? 1 : 0, counted.suspect ? 1 : 0);
    } else if (counted.suspect) {
      if (dir.parent == ModelTree::none ||
          accounts_.tree().counters(tree.dir(dir.parent).index).suspect)
        return;
    }
    expect("rbytes", sums.bytes, counted.rbytes.count);
    expect("rdisk", sums.disk, counted.rdisk.count);
    expect("runique", sums.unique, counted.runique.count);
    expect("rfiles", sums.rfiles, counted.rfiles);
    expect("rsubdirs", sums.rsubdirs, counted.rsubdirs);
    expect("files", sums.files, counted.files);
    expect("subdirs", sums.subdirs, counted.subdirs);
    const TimeNs at_least_ns = std::max(sums.ctime_ns, dir.rctime_seen_ns);
    if (counted.rctime_ns < at_least_ns) expect("rctime", at_least_ns, counted.rctime_ns);
    if (counted.rctime_ns > settings_.latest_ns)
      expect("rctime", settings_.latest_ns, counted.rctime_ns);
    dir.rctime_seen_ns = counted.rctime_ns;
  }

  void compare_orphans(int64_t bytes) {
    if (!found.empty() || accounts_.orphan_bytes().count == bytes) return;
    found = "orphan_bytes is " + std::to_string(accounts_.orphan_bytes().count) + ", recounted " +
            std::to_string(bytes);
  }

  void compare_size(std::size_t dirs) {
    if (!found.empty() || accounts_.tree().size() == dirs) return;
    found = "directories in the tree are " + std::to_string(accounts_.tree().size()) +
            ", recounted " + std::to_string(dirs);
  }

  std::string found;

 private:
  void expect(const char* what, int64_t expected, int64_t actual) {
    if (expected == actual || !found.empty()) return;
    found = "d" + std::to_string(number_) + ": " + what + " is " + std::to_string(actual) +
            ", recounted " + std::to_string(expected);
  }

  Accounts& accounts_;
  const CheckSettings& settings_;
  uint32_t number_ = 0;
};

/// The bytes of files that are open and have no name.
int64_t orphaned(const ModelTree& tree) {
  int64_t bytes = 0;
  std::vector<uint32_t> met;
  for (const uint32_t handle : tree.handles().numbers()) {
    const uint32_t number = tree.file_behind(handle);
    const ModelTree::File& file = tree.file(number);
    if (!file.names.empty() || file.external != 0 || file.lost) continue;
    if (std::ranges::find(met, number) != met.end()) continue;
    met.push_back(number);
    bytes += file.size.count;
  }
  return bytes;
}

}  // namespace

std::string first_difference(Accounts& accounts, std::span<ModelTree* const> trees,
                             const CheckSettings& settings) {
  Comparison comparison(accounts, settings);
  thread_local Recount recount;  // for its memory
  int64_t orphan_bytes = 0;
  std::size_t dirs = 0;
  for (ModelTree* tree : trees) {
    recount.add(*tree, tree == trees.front());
    for (const uint32_t dir : tree->dirs().numbers()) {
      if (trees.size() > 1 && tree->dir(dir).shared) continue;
      comparison.compare(*tree, dir, recount.of(dir));
      ++dirs;
    }
    orphan_bytes += orphaned(*tree);
  }
  if (trees.size() > 1) {
    for (const uint32_t dir : trees.front()->dirs().numbers()) {
      if (!trees.front()->dir(dir).shared) continue;
      comparison.compare(*trees.front(), dir, recount.of(dir));
      ++dirs;
    }
  }
  comparison.compare_size(dirs);
  comparison.compare_orphans(orphan_bytes);
  return comparison.found;
}

}  // namespace tally::test
