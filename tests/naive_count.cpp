#include "tests/naive_count.hpp"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include "core/unique_fd.hpp"

namespace tally::test {
namespace {

struct InodeBelow {
  int64_t size_bytes;
  int64_t disk_bytes;
  int64_t nlink;
  int64_t names_below;
};

/// The non-directories with at least one name below a directory: S(D) of the design.
using InodeSet = std::map<std::pair<dev_t, ino_t>, InodeBelow>;

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

struct stat stat_of(int dir_fd, const char* name) {
  struct stat st{};
  if (::fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0) fail(name);
  return st;
}

TimeNs ctime_ns(const struct stat& st) {
  return TimeNs{st.st_ctim.tv_sec} * 1'000'000'000 + st.st_ctim.tv_nsec;
}

void merge(InodeSet& into, const InodeSet& from) {
  for (const auto& [key, inode] : from) {
    auto [place, is_new] = into.try_emplace(key, inode);
    if (!is_new) place->second.names_below += inode.names_below;
  }
}

struct Subtree {
  Counters counters;
  InodeSet inodes;
  int64_t directories_disk_bytes = 0;
};

class Walk {
 public:
  Subtree count(UniqueFd fd, const std::string& path) {
    Subtree here;
    const struct stat own = stat_of(fd.get(), "");
    here.counters.st_blocks = own.st_blocks;
    here.counters.rctime_ns = ctime_ns(own);
    here.directories_disk_bytes = int64_t{own.st_blocks} * block_size_bytes;

    const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd.release()), ::closedir);
    if (!stream) fail("fdopendir " + path);
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(stream.get());
      if (entry == nullptr) break;
      if (std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0) continue;
      add_entry(here, ::dirfd(stream.get()), entry->d_name, path);
    }
    if (errno != 0) fail("readdir " + path);

    sum_up(here);
    result[path] = here.counters;
    return here;
  }

  CountMap result;

 private:
  void add_entry(Subtree& here, int dir_fd, const char* name, const std::string& path) {
    const struct stat st = stat_of(dir_fd, name);
    here.counters.entries += 1;
    here.counters.rctime_ns = std::max(here.counters.rctime_ns, ctime_ns(st));
    if (!S_ISDIR(st.st_mode)) {
      here.counters.files += 1;
      merge(here.inodes, {{{st.st_dev, st.st_ino},
                           {st.st_size, int64_t{st.st_blocks} * block_size_bytes,
                            static_cast<int64_t>(st.st_nlink), 1}}});
      return;
    }
    UniqueFd child_fd(::openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!child_fd) fail("open " + path + "/" + name);
    const Subtree child = count(std::move(child_fd), path.empty() ? name : path + "/" + name);
    here.counters.subdirs += 1;
    here.counters.rsubdirs += 1 + child.counters.rsubdirs;
    here.counters.rctime_ns = std::max(here.counters.rctime_ns, child.counters.rctime_ns);
    here.directories_disk_bytes += child.directories_disk_bytes;
    merge(here.inodes, child.inodes);
  }

  static void sum_up(Subtree& here) {
    Counters& counters = here.counters;
    counters.rdisk = counters.runique = here.directories_disk_bytes;
    for (const auto& [key, inode] : here.inodes) {
      counters.rfiles += 1;
      counters.rbytes += inode.size_bytes;
      counters.rdisk += inode.disk_bytes;
      if (inode.names_below == inode.nlink) counters.runique += inode.disk_bytes;
    }
    counters.rentries = counters.rfiles + counters.rsubdirs;
  }
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const Counters& c) {
  return out << "rbytes " << c.rbytes << ", rdisk " << c.rdisk << ", rfiles " << c.rfiles
             << ", rsubdirs " << c.rsubdirs << ", rentries " << c.rentries << ", entries "
             << c.entries << ", files " << c.files << ", subdirs " << c.subdirs << ", runique "
             << c.runique << ", rctime_ns " << c.rctime_ns << ", st_blocks " << c.st_blocks;
}

CountMap naive_count(const std::string& directory) {
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) fail("open " + directory);
  Walk walk;
  walk.count(std::move(fd), "");
  return std::move(walk.result);
}

}  // namespace tally::test
