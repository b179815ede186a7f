// SystemCalls: names.

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <memory>
#include <utility>

#include "tests/mount/system_calls.hpp"

namespace tally::test {

namespace {

template <class T>
T& at_number(std::vector<T>& things, uint32_t number) {
  if (number >= things.size()) things.resize(std::size_t{number} + 1);
  return things[number];
}

std::string leaf_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool rename_with(const std::string& from, const std::string& to, unsigned flags) {
  return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0;
}

bool write_bytes(int fd, uint32_t count) {
  const std::string bytes(count, 'b');
  return ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(count);
}

}  // namespace

/// `path` is now the name.
void SystemCalls::name_file(uint32_t name, const std::string& path, uint32_t file, uint32_t dir) {
  at_number(name_leaves_, name) = leaf_of(path);
  tree_.add_name(name, file, dir);
}

bool SystemCalls::create(const Operands& given) {
  const auto [name, dir, bytes, unused] = given;
  if (!has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  const std::string path = new_path(dir, 'n', name);
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) return false;
  name_file(name, path, tree_.add_file({}, {}), dir);
  return bytes % 4 == 0 || write_bytes(fd.get(), bytes);
}

bool SystemCalls::make_node(const Operands& given) {
  const auto [name, dir, type, unused] = given;
  if (!has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  constexpr mode_t types[] = {S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
  // Device 0:0 is nobody's, so that nothing happens when it is opened.
  const std::string path = new_path(dir, 'n', name);
  if (::mknod(path.c_str(), types[type % std::size(types)] | 0644, makedev(0, 0)) != 0)
    return false;
  name_file(name, path, tree_.add_file({}, {}), dir);
  return true;
}

bool SystemCalls::make_symlink(const Operands& given) {
  const auto [name, dir, length, unused] = given;
  if (!has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  const std::string path = new_path(dir, 'n', name);
  if (::symlink(std::string(1 + length, 's').c_str(), path.c_str()) != 0) return false;
  name_file(name, path, tree_.add_file({}, {}), dir);
  return true;
}

bool SystemCalls::make_directory(const Operands& given) {
  const auto [dir, parent, unused, unused_too] = given;
  if (!has_dir(parent) || !tree_.is_fresh_dir(dir)) return false;
  const std::string path = new_path(parent, 'd', dir);
  if (::mkdir(path.c_str(), 0755) != 0) return false;
  at_number(dir_leaves_, dir) = leaf_of(path);
  tree_.add_dir(dir, parent);
  return true;
}

bool SystemCalls::link(const Operands& given) {
  const auto [name, from, dir, unused] = given;
  if (!has_name(from) || !has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  const std::string path = new_path(dir, 'n', name);
  if (::link(path_of(from).c_str(), path.c_str()) != 0) return false;
  name_file(name, path, tree_.name(from).file, dir);
  return true;
}

bool SystemCalls::unlink(const Operands& given) {
  if (!has_name(given[0]) || ::unlink(path_of(given[0]).c_str()) != 0) return false;
  tree_.remove_name(given[0]);
  return true;
}

bool SystemCalls::remove_directory(const Operands& given) {
  if (!may_change(given[0]) || ::rmdir(path_of_dir(given[0]).c_str()) != 0) return false;
  tree_.remove_dir(given[0]);
  return true;
}

// --- Rename ----------------------------------------------------------------------------------

bool SystemCalls::rename(const Operands& given) {
  const auto [name, dir, flags, unused] = given;
  if (!has_name(name) || !has_dir(dir)) return false;
  const std::string to = new_path(dir, 'n', name);
  if (!rename_with(path_of(name), to, flags != 0 ? RENAME_NOREPLACE : 0)) return false;
  tree_.move_name(name, dir);
  name_leaves_[name] = leaf_of(to);
  return true;
}

/// Which must fail, and leave everything as it is.
bool SystemCalls::rename_onto(const Operands& given) {
  const auto [name, other, unused, unused_too] = given;
  if (!has_name(name) || !has_name(other)) return false;
  return !rename_with(path_of(name), path_of(other), RENAME_NOREPLACE);
}

bool SystemCalls::whiteout(const Operands& given) {
  const auto [left_behind, name, dir, unused] = given;
  if (!has_name(name) || !has_dir(dir) || !tree_.is_fresh_name(left_behind)) return false;
  const uint32_t from = tree_.name(name).dir;
  const std::string path = path_of(name);
  const std::string to = new_path(dir, 'n', name);
  if (!rename_with(path, to, RENAME_WHITEOUT)) return false;
  name_file(left_behind, path, tree_.add_file({}, {}), from);
  name_leaves_[name] = leaf_of(to);
  tree_.move_name(name, dir);
  return true;
}

bool SystemCalls::overwrite(const Operands& given) {
  const auto [name, victim, unused, unused_too] = given;
  if (!has_name(name) || !has_name(victim)) return false;
  if (!rename_with(path_of(name), path_of(victim), 0)) return false;
  // rename(2): of two names of one inode both stay.
  if (tree_.name(name).file == tree_.name(victim).file) return true;
  const uint32_t to = tree_.name(victim).dir;
  tree_.remove_name(victim);
  tree_.move_name(name, to);
  name_leaves_[name] = name_leaves_[victim];
  return true;
}

bool SystemCalls::exchange(const Operands& given) {
  const auto [a, b, unused, unused_too] = given;
  if (!has_name(a) || !has_name(b)) return false;
  if (!rename_with(path_of(a), path_of(b), RENAME_EXCHANGE)) return false;
  // Of two names of one inode nothing is exchanged.
  if (tree_.name(a).file == tree_.name(b).file) return true;
  const uint32_t dir_a = tree_.name(a).dir;
  tree_.move_name(a, tree_.name(b).dir);
  tree_.move_name(b, dir_a);
  std::swap(name_leaves_[a], name_leaves_[b]);
  return true;
}

bool SystemCalls::exchange_mixed(const Operands& given) {
  const auto [name, dir, unused, unused_too] = given;
  if (!has_name(name) || !may_change(dir)) return false;
  if (!rename_with(path_of(name), path_of_dir(dir), RENAME_EXCHANGE)) return false;
  const uint32_t from = tree_.name(name).dir;
  tree_.move_name(name, tree_.dir(dir).parent);
  tree_.move_dir(dir, from);
  std::swap(name_leaves_[name], dir_leaves_[dir]);
  return true;
}

bool SystemCalls::exchange_directories(const Operands& given) {
  const auto [a, b, unused, unused_too] = given;
  if (!may_change(a) || !may_change(b)) return false;
  if (!rename_with(path_of_dir(a), path_of_dir(b), RENAME_EXCHANGE)) return false;
  if (a == b) return true;
  const uint32_t parent_a = tree_.dir(a).parent;
  tree_.move_dir(a, tree_.dir(b).parent);
  tree_.move_dir(b, parent_a);
  std::swap(dir_leaves_[a], dir_leaves_[b]);
  return true;
}

bool SystemCalls::move_directory(const Operands& given) {
  const auto [dir, to, unused, unused_too] = given;
  if (!may_change(dir) || !has_dir(to)) return false;
  const std::string path = new_path(to, 'd', dir);
  if (!rename_with(path_of_dir(dir), path, 0)) return false;
  tree_.move_dir(dir, to);
  dir_leaves_[dir] = leaf_of(path);
  return true;
}

bool SystemCalls::overwrite_directory(const Operands& given) {
  const auto [dir, victim, unused, unused_too] = given;
  if (!may_change(dir) || !may_change(victim)) return false;
  if (!rename_with(path_of_dir(dir), path_of_dir(victim), 0)) return false;
  if (dir == victim) return true;
  const uint32_t to = tree_.dir(victim).parent;
  tree_.remove_dir(victim);
  tree_.move_dir(dir, to);
  dir_leaves_[dir] = dir_leaves_[victim];
  return true;
}

// --- Files without a name --------------------------------------------------------------------

bool SystemCalls::open_nameless(const Operands& given) {
  const auto [handle, dir, bytes, unused] = given;
  if (!has_dir(dir) || !tree_.is_fresh_handle(handle)) return false;
  UniqueFd fd(::open(path_of_dir(dir).c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0644));
  if (!fd) return false;
  const bool written = write_bytes(fd.get(), bytes);
  at_number(fds_, handle) = std::move(fd);
  tree_.add_handle(handle, tree_.add_file({}, {}));
  return written;
}

bool SystemCalls::link_open(const Operands& given) {
  const auto [name, handle, dir, unused] = given;
  if (!has_handle(handle) || !has_dir(dir) || !tree_.is_fresh_name(name)) return false;
  const std::string open_file = "/proc/self/fd/" + std::to_string(fds_[handle].get());
  const std::string path = new_path(dir, 'n', name);
  if (::linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0)
    return false;
  name_file(name, path, tree_.file_behind(handle), dir);
  return true;
}

// --- Looking ---------------------------------------------------------------------------------

bool SystemCalls::list(const Operands& given) {
  if (!has_dir(given[0])) return false;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::opendir(path_of_dir(given[0]).c_str()),
                                                   ::closedir);
  if (!stream) return false;
  while (const dirent* entry = ::readdir(stream.get())) {
    struct stat st{};
    ::fstatat(::dirfd(stream.get()), entry->d_name, &st, AT_SYMLINK_NOFOLLOW);
  }
  return true;
}

/// The kernel forgets every inode that nobody uses (proc_sys_vm(5)).
bool SystemCalls::drop_caches(const Operands& /*given*/) {
  const UniqueFd fd(::open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC));
  return fd && ::write(fd.get(), "2", 1) == 1;
}

bool SystemCalls::remount(const Operands& /*given*/) {
  if (!remount_) return false;
  close_all();
  remount_();
  return true;
}

}  // namespace tally::test
