#include "tests/mount/random_changes.hpp"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace tally::test {
namespace {

constexpr size_t files_max = 500;
constexpr size_t directories_max = 120;
constexpr uint64_t write_max_bytes = 20'000;

bool is_at_or_below(const std::string& path, const std::string& directory) {
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

/// Gives every path at or below `from` its place at or below `to`.
void move_paths(std::vector<std::string>& paths, const std::string& from, const std::string& to) {
  for (std::string& path : paths) {
    if (is_at_or_below(path, from)) path.replace(0, from.size(), to);
  }
}

void forget(std::vector<std::string>& paths, const std::string& path) { std::erase(paths, path); }

bool write_random(int fd, uint64_t length, uint64_t offset) {
  const std::string bytes(length, 'r');
  return ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(length);
}

}  // namespace

RandomChanges::RandomChanges(std::string directory, uint64_t seed)
    : directory_(std::move(directory)), random_(seed) {}

bool RandomChanges::step() {
  using Change = bool (RandomChanges::*)();
  static constexpr std::pair<Change, unsigned> weighted[] = {
      {&RandomChanges::create, 18},           {&RandomChanges::make_directory, 7},
      {&RandomChanges::make_symlink, 2},      {&RandomChanges::write, 20},
      {&RandomChanges::truncate, 7},          {&RandomChanges::allocate, 2},
      {&RandomChanges::change_attributes, 2}, {&RandomChanges::link, 8},
      {&RandomChanges::unlink, 12},           {&RandomChanges::remove_directory, 4},
      {&RandomChanges::rename_file, 7},       {&RandomChanges::rename_directory, 4},
      {&RandomChanges::exchange, 2},          {&RandomChanges::hold_open, 3},
      {&RandomChanges::use_held, 5},          {&RandomChanges::name_a_nameless_file, 1}};
  if (files_.empty()) return create();
  if (files_.size() > files_max) return unlink();
  unsigned total = 0;
  for (const auto& [change, weight] : weighted)
    total += weight;
  uint64_t dice = below(total);
  for (const auto& [change, weight] : weighted) {
    if (dice < weight) return (this->*change)();
    dice -= weight;
  }
  return false;
}

void RandomChanges::close_all() {
  for (UniqueFd& fd : held_)
    fd.reset();
}

std::string RandomChanges::new_path() {
  return any_of(directories_) + "/n" + std::to_string(++names_made_);
}

bool RandomChanges::create() {
  const std::string path = new_path();
  last_ = "create " + path;
  const UniqueFd fd(::open(full(path).c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return false;
  files_.push_back(path);
  return below(4) == 0 || write_random(fd.get(), below(write_max_bytes), 0);
}

bool RandomChanges::make_directory() {
  if (directories_.size() > directories_max) return remove_directory();
  const std::string path = new_path();
  last_ = "mkdir " + path;
  if (::mkdir(full(path).c_str(), 0755) != 0) return false;
  directories_.push_back(path);
  return true;
}

bool RandomChanges::make_symlink() {
  const std::string path = new_path();
  last_ = "symlink " + path;
  if (::symlink(std::string(1 + below(200), 's').c_str(), full(path).c_str()) != 0) return false;
  files_.push_back(path);
  return true;
}

bool RandomChanges::write() {
  const std::string& path = any_of(files_);
  last_ = "write " + path;
  const int append = below(4) == 0 ? O_APPEND : 0;
  const UniqueFd fd(::open(full(path).c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC | append));
  return fd && write_random(fd.get(), 1 + below(write_max_bytes), below(4 * write_max_bytes));
}

bool RandomChanges::truncate() {
  const std::string& path = any_of(files_);
  last_ = "truncate " + path;
  if (below(4) == 0) {
    const UniqueFd fd(::open(full(path).c_str(), O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC));
    return static_cast<bool>(fd);
  }
  return ::truncate(full(path).c_str(), static_cast<off_t>(below(4 * write_max_bytes))) == 0;
}

bool RandomChanges::allocate() {
  const std::string& path = any_of(files_);
  last_ = "fallocate " + path;
  constexpr int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           FALLOC_FL_ZERO_RANGE};
  const UniqueFd fd(::open(full(path).c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  return fd &&
         ::fallocate(fd.get(), modes[below(4)], static_cast<off_t>(below(4 * write_max_bytes)),
                     static_cast<off_t>(1 + below(write_max_bytes))) == 0;
}

bool RandomChanges::change_attributes() {
  const std::string path = full(any_of(below(4) == 0 ? directories_ : files_));
  last_ = "attributes of " + path;
  switch (below(3)) {
    case 0:
      return ::chmod(path.c_str(), 0700 + static_cast<mode_t>(below(64))) == 0;
    case 1:
      return ::lchown(path.c_str(), static_cast<uid_t>(below(100)), 0) == 0;
    default: {
      const std::string value(below(3000), 'v');
      return ::lsetxattr(path.c_str(), "user.random", value.data(), value.size(), 0) == 0;
    }
  }
}

bool RandomChanges::link() {
  const std::string path = new_path();
  const std::string from = any_of(files_);
  last_ = "link " + from + " to " + path;
  if (::link(full(from).c_str(), full(path).c_str()) != 0) return false;
  files_.push_back(path);
  return true;
}

bool RandomChanges::unlink() {
  const std::string path = any_of(files_);
  last_ = "unlink " + path;
  if (::unlink(full(path).c_str()) != 0) return false;
  forget(files_, path);
  return true;
}

bool RandomChanges::remove_directory() {
  // Most directories are full: a few tries, so that an empty one is met often enough.
  for (int tries = 0; tries < 10; ++tries) {
    const std::string path = any_of(directories_);
    last_ = "rmdir " + path;
    if (path.empty() || ::rmdir(full(path).c_str()) != 0) continue;
    forget(directories_, path);
    return true;
  }
  return false;
}

bool RandomChanges::rename_file() {
  const std::string from = any_of(files_);
  const bool overwrite = below(3) == 0;
  const std::string to = overwrite ? any_of(files_) : new_path();
  last_ = "rename " + from + " to " + to;
  struct stat one{};
  struct stat two{};
  const bool same_inode = ::lstat(full(from).c_str(), &one) == 0 &&
                          ::lstat(full(to).c_str(), &two) == 0 && one.st_ino == two.st_ino;
  if (::rename(full(from).c_str(), full(to).c_str()) != 0) return false;
  // rename(2): with both names on one inode nothing happens.
  if (same_inode) return true;
  forget(files_, from);
  if (!overwrite) files_.push_back(to);
  return true;
}

bool RandomChanges::rename_directory() {
  const std::string from = any_of(directories_);
  const std::string to = new_path();
  last_ = "rename directory " + from + " to " + to;
  if (from.empty() || ::rename(full(from).c_str(), full(to).c_str()) != 0) return false;
  move_paths(directories_, from, to);
  move_paths(files_, from, to);
  return true;
}

bool RandomChanges::exchange() {
  const std::string one = any_of(directories_);
  const std::string two = any_of(directories_);
  last_ = "exchange " + one + " with " + two;
  if (one.empty() || two.empty() ||
      ::renameat2(AT_FDCWD, full(one).c_str(), AT_FDCWD, full(two).c_str(), RENAME_EXCHANGE) != 0) {
    return false;
  }
  if (one == two) return true;
  // No path can begin with this name, because it begins with no slash.
  for (std::vector<std::string>* paths : {&directories_, &files_}) {
    move_paths(*paths, one, "exchanged");
    move_paths(*paths, two, one);
    move_paths(*paths, "exchanged", two);
  }
  return true;
}

bool RandomChanges::hold_open() {
  const std::string& path = any_of(files_);
  last_ = "hold open " + path;
  UniqueFd fd(::open(full(path).c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return false;
  held_[below(held_.size())] = std::move(fd);
  return true;
}

bool RandomChanges::use_held() {
  UniqueFd& fd = held_[below(held_.size())];
  last_ = "use a held file";
  if (!fd) return false;
  switch (below(3)) {
    case 0:
      return write_random(fd.get(), 1 + below(write_max_bytes), below(write_max_bytes));
    case 1:
      return ::ftruncate(fd.get(), static_cast<off_t>(below(write_max_bytes))) == 0;
    default:
      fd.reset();
      return true;
  }
}

bool RandomChanges::name_a_nameless_file() {
  const std::string path = new_path();
  last_ = "name a nameless file " + path;
  const UniqueFd fd(
      ::open(full(any_of(directories_)).c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644));
  if (!fd || !write_random(fd.get(), 1 + below(write_max_bytes), 0)) return false;
  const std::string nameless = "/proc/self/fd/" + std::to_string(fd.get());
  if (::linkat(AT_FDCWD, nameless.c_str(), AT_FDCWD, full(path).c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return false;
  }
  files_.push_back(path);
  return true;
}

}  // namespace tally::test
