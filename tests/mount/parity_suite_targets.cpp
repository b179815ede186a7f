// The rows of the parity suite: what calls are made on.

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <climits>

#include "tests/mount/parity.hpp"
#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

void own(const std::string& path, uid_t user, gid_t group, mode_t mode) {
  static_cast<void>(::chown(path.c_str(), user, group));
  ::chmod(path.c_str(), mode);
}

using Make = std::function<void(Cell&)>;

/// A file at `cell.target()`.
Make file(uid_t user, gid_t group, mode_t mode) {
  return [=](Cell& cell) {
    write_file(cell.target(), "content");
    own(cell.target(), user, group, mode);
  };
}

Make directory(uid_t user, gid_t group, mode_t mode) {
  return [=](Cell& cell) {
    ::mkdir(cell.target().c_str(), 0755);
    own(cell.target(), user, group, mode);
  };
}

Make node(mode_t type, dev_t device = 0) {
  return [=](Cell& cell) {
    ::mknod(cell.target().c_str(), type | 0600, device);
    own(cell.target(), suite_owner, suite_group, 0664);
  };
}

Make link_to(const std::string& target) {
  return [=](Cell& cell) {
    static_cast<void>(::symlink(target.c_str(), cell.target().c_str()));
    static_cast<void>(::lchown(cell.target().c_str(), suite_owner, suite_group));
  };
}

Make nothing() {
  return [](Cell&) {};
}

/// The first one, and then another one.
Make both(Make first, Make second) {
  return [first = std::move(first), second = std::move(second)](Cell& cell) {
    first(cell);
    second(cell);
  };
}

Make in_parent(uid_t user, gid_t group, mode_t mode) {
  return [=](Cell& cell) { own(cell.parent, user, group, mode); };
}

/// The target is reached by its plain name with this after it.
Make reached_by(const std::string& suffix) {
  return [=](Cell& cell) { cell.path = cell.target() + suffix; };
}

/// The target is reached by this path below its parent.
Make called(const std::string& name) {
  return [=](Cell& cell) { cell.path = cell.parent + "/" + name; };
}

/// A path to the target that is `length` bytes long.
Make path_of_length(size_t length) {
  return [=](Cell& cell) {
    std::string path = cell.parent + "/";
    while (path.size() + 2 < length)
      path += "./";
    while (path.size() + 1 < length)
      path += "/";
    cell.path = path + "t";
  };
}

/// The target behind this many symbolic links.
Make behind_links(int count) {
  return [=](Cell& cell) { cell.path = "s" + std::to_string(count) + "/" + cell.target(); };
}

Make named(const std::string& name) {
  return [=](Cell& cell) {
    cell.path = cell.parent + "/" + name;
    write_file(cell.path, "content");
    own(cell.path, suite_owner, suite_group, 0664);
  };
}

Make with_xattr(const char* name, const std::string& value) {
  return
      [=](Cell& cell) { ::lsetxattr(cell.target().c_str(), name, value.data(), value.size(), 0); };
}

/// cap_net_raw=ep, as VFS_CAP_REVISION_2 (linux/capability.h).
const std::string file_capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);

/// One entry of an ACL in the form of linux/posix_acl_xattr.h.
std::string acl_entry(unsigned tag, unsigned permissions, unsigned id) {
  std::string entry;
  for (const unsigned byte : {tag & 0xff, tag >> 8, permissions & 0xff, permissions >> 8, id & 0xff,
                              id >> 8 & 0xff, id >> 16 & 0xff, id >> 24}) {
    entry += static_cast<char>(byte);
  }
  return entry;
}

/// Owner rwx, the other user rw-, group r--, mask rw-, others nothing.
std::string acl() {
  constexpr unsigned no_id = 0xffffffff;
  return std::string("\2\0\0\0", 4) + acl_entry(1, 7, no_id) + acl_entry(2, 6, suite_other) +
         acl_entry(4, 4, no_id) + acl_entry(16, 6, no_id) + acl_entry(32, 0, no_id);
}

Make second_name() {
  return
      [](Cell& cell) { static_cast<void>(::link(cell.target().c_str(), cell.second().c_str())); };
}

Make entry_inside() {
  return [](Cell& cell) {
    write_file(cell.target() + "/inside", "inside");
    own(cell.target() + "/inside", suite_owner, suite_group, 0664);
  };
}

std::vector<Target> files() {
  const Make plain = file(suite_owner, suite_group, 0664);
  return {
      {"file", plain},
      {"file of root", file(0, 0, 0644)},
      {"file without rights", file(suite_owner, suite_group, 0)},
      {"read-only file", file(suite_owner, suite_group, 0444)},
      {"file with set-id bits", file(suite_owner, suite_group, 06775)},
      {"file of root with set-id bits, open to all", file(0, 0, 06777)},
      {"setgid file without group execution", file(suite_owner, suite_group, 02666)},
      {"setgid file of a foreign group, without group execution",
       file(suite_owner, foreign_group, 02666)},
      {"file with capabilities", both(file(suite_owner, suite_group, 0777),
                                      with_xattr("security.capability", file_capability))},
      {"file with an ACL",
       both(file(suite_owner, suite_group, 0660), with_xattr("system.posix_acl_access", acl()))},
      {"file with two names", both(plain, second_name())},
      {"sparse file",
       both(plain,
            [](Cell& cell) { static_cast<void>(::truncate(cell.target().c_str(), 9'000)); })},
  };
}

std::vector<Target> other_types() {
  return {
      {"directory", directory(suite_owner, suite_group, 0775)},
      {"directory that is not empty",
       both(directory(suite_owner, suite_group, 0775), entry_inside())},
      {"setgid directory of a foreign group", directory(0, foreign_group, 02777)},
      {"directory with a default ACL", both(directory(suite_owner, suite_group, 0775),
                                            with_xattr("system.posix_acl_default", acl()))},
      {"fifo", node(S_IFIFO)},
      {"socket", node(S_IFSOCK)},
      {"character device", node(S_IFCHR, makedev(1, 3))},
      {"block device", node(S_IFBLK, makedev(240, 7))},
      {"symlink to a file",
       [](Cell& cell) {
         write_file(cell.parent + "/aim", "content");
         own(cell.parent + "/aim", suite_owner, suite_group, 0664);
         link_to("aim")(cell);
       }},
      {"symlink to a directory",
       [](Cell& cell) {
         ::mkdir((cell.parent + "/aim").c_str(), 0755);
         own(cell.parent + "/aim", suite_owner, suite_group, 0775);
         link_to("aim")(cell);
       }},
      {"symlink to nothing", link_to("aim")},
      {"symlink to itself", link_to("t")},
  };
}

std::vector<Target> missing_ones() {
  const Make plain = file(suite_owner, suite_group, 0664);
  return {
      {"missing", nothing()},
      {"missing below a missing directory", called("missing/t")},
      {"missing below a file", both(plain, reached_by("/t"))},
      {"missing below a symlink to nothing", both(link_to("aim"), reached_by("/t"))},
      {"missing below a symlink to itself", both(link_to("t"), reached_by("/t"))},
      {"missing in a sticky directory", in_parent(0, 0, 01777)},
      {"missing in a closed directory", in_parent(0, 0, 0700)},
      {"missing in a read-only directory", in_parent(0, 0, 0555)},
      {"missing in a setgid directory of the group", in_parent(0, suite_group, 02777)},
      {"missing in a setgid directory of a foreign group", in_parent(0, foreign_group, 02777)},
      {"missing below a default ACL",
       [](Cell& cell) {
         ::setxattr(cell.parent.c_str(), "system.posix_acl_default", acl().data(), acl().size(), 0);
       }},
  };
}

std::vector<Target> places() {
  const Make plain = file(suite_owner, suite_group, 0664);
  const Make plain_directory = directory(suite_owner, suite_group, 0775);
  return {
      {"file of root in a sticky directory", both(in_parent(0, 0, 01777), file(0, 0, 0666))},
      {"file in root's sticky directory", both(in_parent(0, 0, 01777), plain)},
      {"file of another in the owner's sticky directory",
       both(in_parent(suite_owner, suite_group, 01777), file(suite_other, suite_other, 0666))},
      {"directory of another in a sticky directory",
       both(in_parent(0, 0, 01777), directory(suite_other, suite_other, 0777))},
      {"file in a closed directory", both(in_parent(0, 0, 0700), plain)},
      {"file in a read-only directory", both(in_parent(0, 0, 0555), plain)},
      {"file with a slash after it", both(plain, reached_by("/"))},
      {"directory with a slash after it", both(plain_directory, reached_by("/"))},
      {"missing with a slash after it", reached_by("/")},
      {"symlink to nothing with a slash after it", both(link_to("aim"), reached_by("/"))},
      {"symlink to a directory with a slash after it", both(link_to("."), reached_by("/"))},
      {"a directory's dot", both(plain_directory, reached_by("/."))},
      {"a directory's two dots", both(plain_directory, reached_by("/.."))},
  };
}

std::vector<Target> names_and_paths() {
  const Make plain = file(suite_owner, suite_group, 0664);
  return {
      {"name of 255 bytes", named(std::string(NAME_MAX, 'n'))},
      {"missing name of 255 bytes", called(std::string(NAME_MAX, 'n'))},
      {"name of 256 bytes", called(std::string(NAME_MAX + 1, 'n'))},
      {"name of 1025 bytes", called(std::string(1025, 'n'))},
      {"name that is not UTF-8", named("\xff\xfe\x01 \x80")},
      {"missing name that is not UTF-8", called("\xff\xfe\x01 \x80")},
      {"path of 4095 bytes", both(plain, path_of_length(PATH_MAX - 1))},
      {"missing path of 4095 bytes", path_of_length(PATH_MAX - 1)},
      {"path of 4096 bytes", both(plain, path_of_length(PATH_MAX))},
      {"file behind 40 symlinks", both(plain, behind_links(40))},
      {"file behind 41 symlinks", both(plain, behind_links(41))},
      {"missing behind 40 symlinks", behind_links(40)},
      {"empty path", [](Cell& cell) { cell.path = ""; }},
  };
}

}  // namespace

std::span<const Target> suite_targets() {
  static const std::vector<Target> all = [] {
    std::vector<Target> targets;
    for (const auto& part : {files(), other_types(), missing_ones(), places(), names_and_paths()})
      targets.insert(targets.end(), part.begin(), part.end());
    return targets;
  }();
  return all;
}

}  // namespace tally::test
