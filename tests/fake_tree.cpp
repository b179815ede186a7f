#include "tests/fake_tree.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <system_error>
#include <vector>

#include "core/unique_fd.hpp"
#include "tests/temp_folder.hpp"

namespace tally::test {
namespace {

/// In percent of the names made; what remains are regular files.
struct Mixture {
  uint64_t directories;
  uint64_t hard_links;
};

constexpr Mixture mixture_of(TreeShape shape) {
  switch (shape) {
    case TreeShape::mixed:
      return {.directories = 20, .hard_links = 15};
    case TreeShape::deep_chain:
      return {.directories = 30, .hard_links = 15};
    case TreeShape::wide:
      return {.directories = 3, .hard_links = 5};
    case TreeShape::hard_links:
      return {.directories = 10, .hard_links = 60};
  }
  return {};
}

/// One descriptor per level is held while such a tree is walked or removed, and the usual limit
/// on descriptors is 1024.
constexpr size_t depth_max = 250;

class TreeMaker {
 public:
  TreeMaker(const std::string& directory, TreeShape shape, uint64_t seed)
      : shape_(shape), random_(seed) {
    directories_.push_back({0, directory, 0});
  }

  void make(int entry_count) {
    for (int i = 0; i < entry_count; ++i)
      add_entry();
  }

 private:
  struct Directory {
    size_t parent;
    std::string name;
    size_t depth;
  };
  struct File {
    size_t directory;
    std::string name;
  };

  uint64_t below(uint64_t limit) { return random_() % limit; }

  static void check(bool good, const char* what) {
    if (!good) throw std::system_error(errno, std::generic_category(), what);
  }

  UniqueFd open_directory(size_t index) const {
    constexpr int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    const Directory& directory = directories_[index];
    UniqueFd fd = index == 0 ? UniqueFd(::open(directory.name.c_str(), flags))
                             : UniqueFd(::openat(open_directory(directory.parent).get(),
                                                 directory.name.c_str(), flags));
    check(fd.get() >= 0, "open a directory of the fake tree");
    return fd;
  }

  std::string next_name() {
    const std::string number = std::to_string(++names_made_);
    switch (below(12)) {
      case 0:
        return "with space " + number;
      case 1:
        return "line\nbreak\n" + number;
      case 2:
        return "\xff\xfe\x80" + number;
      case 3:
        return number + std::string(255 - number.size(), 'n');
      case 4:
        return "-n" + number;
      case 5:
        return "\xe6\xa8\xb9 \"quoted\" \\" + number;
      case 6:
        return "..." + number;
      default:
        return "name" + number;
    }
  }

  /// Where the next name goes.
  size_t choose_parent() {
    if (shape_ == TreeShape::wide && below(10) != 0) return 0;
    return below(directories_.size());
  }

  void add_entry() {
    const Mixture mixture = mixture_of(shape_);
    const uint64_t dice = below(100);
    if (dice < mixture.directories) {
      add_directory();
    } else if (dice < mixture.directories + mixture.hard_links && !files_.empty()) {
      add_hard_link();
    } else {
      add_file();
    }
  }

  void add_directory() {
    const bool extend_chain = shape_ == TreeShape::deep_chain && below(8) != 0;
    size_t parent = extend_chain ? directories_.size() - 1 : choose_parent();
    if (directories_[parent].depth == depth_max) parent = 0;
    std::string name = next_name();
    check(::mkdirat(open_directory(parent).get(), name.c_str(), 0755) == 0, "mkdir");
    directories_.push_back({parent, std::move(name), directories_[parent].depth + 1});
  }

  void add_hard_link() {
    const File target = files_[below(files_.size())];
    size_t parent = 0;
    switch (below(4)) {
      case 0:
        parent = target.directory;
        break;
      case 1:
        parent = directories_[target.directory].parent;
        break;
      default:
        parent = choose_parent();
        break;
    }
    std::string name = next_name();
    check(::linkat(open_directory(target.directory).get(), target.name.c_str(),
                   open_directory(parent).get(), name.c_str(), 0) == 0,
          "link");
    files_.push_back({parent, std::move(name)});
  }

  void add_file() {
    const size_t parent = choose_parent();
    const UniqueFd dir_fd = open_directory(parent);
    std::string name = next_name();
    switch (below(16)) {
      case 0:
        add_node(dir_fd.get(), name, S_IFIFO, 0);
        break;
      case 1:
        add_node(dir_fd.get(), name, S_IFSOCK, 0);
        break;
      case 2:
        add_node(dir_fd.get(), name, S_IFCHR, makedev(1, 3));
        break;
      case 3:
        check(::symlinkat("no such\ntarget", dir_fd.get(), name.c_str()) == 0, "symlink");
        break;
      case 4:
        // Longer than ext4 keeps inside the inode, so that the link has a block of its own.
        check(::symlinkat(std::string(120, '.').c_str(), dir_fd.get(), name.c_str()) == 0,
              "symlink");
        break;
      case 5:
        check(::symlinkat("..", dir_fd.get(), name.c_str()) == 0, "symlink");
        break;
      default:
        add_regular(dir_fd.get(), name);
        break;
    }
    files_.push_back({parent, std::move(name)});
  }

  static void add_node(int dir_fd, const std::string& name, mode_t type, dev_t device) {
    if (::mknodat(dir_fd, name.c_str(), type | 0644, device) == 0) return;
    check(errno == EPERM, "mknod");
    check(::mknodat(dir_fd, name.c_str(), S_IFIFO | 0644, 0) == 0, "mkfifo");
  }

  void add_regular(int dir_fd, const std::string& name) {
    const UniqueFd fd(
        ::openat(dir_fd, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    check(fd.get() >= 0, "create");
    constexpr size_t sizes_max_bytes[] = {1, 100, 5000, 70'000};
    const std::string content(below(sizes_max_bytes[below(4)]), 'x');
    const bool is_sparse = below(8) == 0;
    const off_t offset = is_sparse ? static_cast<off_t>(below(1 << 24)) : 0;
    const ssize_t written = ::pwrite(fd.get(), content.data(), content.size(), offset);
    check(written == static_cast<ssize_t>(content.size()), "write");
    if (is_sparse) check(::ftruncate(fd.get(), offset + (1 << 20)) == 0, "truncate");
  }

  TreeShape shape_;
  std::mt19937_64 random_;
  std::vector<Directory> directories_;
  std::vector<File> files_;
  int names_made_ = 0;
};

}  // namespace

const char* name_of(TreeShape shape) {
  switch (shape) {
    case TreeShape::mixed:
      return "mixed";
    case TreeShape::deep_chain:
      return "deep chain";
    case TreeShape::wide:
      return "wide";
    case TreeShape::hard_links:
      return "hard links";
  }
  return "";
}

void make_fake_tree(const std::string& directory, TreeShape shape, uint64_t seed, int entry_count) {
  TreeMaker(directory, shape, seed).make(entry_count);
  sync_filesystem(directory);
}

uint64_t seed_or(uint64_t fallback) {
  const char* text = std::getenv("TALLYFS_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : fallback;
}

}  // namespace tally::test
