#include "fs/preflight.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <utility>

#include <fuse_lowlevel.h>

#include "core/open_without_mounts.hpp"
#include "core/result.hpp"
#include "fs/log.hpp"
#include "fs/mount_table.hpp"
#include "fs/startup_error.hpp"

namespace tally::fs {
namespace {

std::string real_path(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  return real ? real.get() : std::string();
}

UniqueFd open_source(const std::string& path) {
  UniqueFd source(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (source) return source;
  const Errno error{errno};
  if (error.value == ENOENT)
    throw StartupError("source " + path + " does not exist: give the directory to count");
  if (error.value == ENOTDIR)
    throw StartupError("source " + path + " is not a directory: give the directory to count");
  if (error.value == ENOTCONN)
    throw StartupError("source " + path +
                       " is a mount whose daemon is gone: unmount it first (umount " + path + ")");
  throw StartupError("cannot open source " + path + ": " + error.message() +
                     (error.value == EACCES ? " (run as root, or give a directory of yours)" : ""));
}

void check_not_mounted_already(const std::string& source_path) {
  const auto mount = mount_at(source_path);
  if (mount && mount->type == "fuse.tallyfs")
    throw StartupError(source_path + " is mounted by tallyfs already: its totals are live; " +
                       "to start anew, unmount it first (umount " + source_path + ")");
}

std::string find_mountpoint(const std::string& given, const std::string& source_path) {
  const std::string path = real_path(given);
  struct stat found;  // a mount without its daemon has a path, and no more
  const bool usable = !path.empty() && ::stat(path.c_str(), &found) == 0;
  const Errno error{usable ? 0 : errno};
  if (error.value == ENOENT)
    throw StartupError("mountpoint " + given + " does not exist: make the directory first");
  if (error.value == ENOTCONN)
    throw StartupError("mountpoint " + given +
                       " is a mount whose daemon is gone: unmount it first (umount " + given + ")");
  if (error.value != 0)
    throw StartupError("cannot use mountpoint " + given + ": " + error.message());
  if (!S_ISDIR(found.st_mode))
    throw StartupError("mountpoint " + given + " is not a directory: give an empty one, or none " +
                       "to mount over the source itself");
  const std::string inside = source_path == "/" ? "/" : source_path + "/";
  if (path != source_path && path.starts_with(inside))
    throw StartupError("mountpoint " + given + " lies inside source " + source_path +
                       ", which would contain itself: mount outside of it, or over it by giving " +
                       "no mountpoint");
  if (::geteuid() != 0 && ::access(path.c_str(), W_OK) != 0)
    throw StartupError("mountpoint " + given +
                       " is not yours to write to, so you may not mount on it: run as root, or " +
                       "give a mountpoint of yours");
  return path;
}

/// Whatever works below must work the same way, and whatever is forbidden must stay so.
std::vector<std::string> restrictions_of(int fd) {
  // statvfs(3) has no name for it yet; the value is ABI (include/linux/statfs.h).
  constexpr unsigned long st_nosymfollow = 0x2000;
  constexpr std::pair<unsigned long, const char*> names[] = {
      {ST_RDONLY, "ro"},        {ST_NOSUID, "nosuid"},           {ST_NODEV, "nodev"},
      {ST_NOEXEC, "noexec"},    {ST_NOATIME, "noatime"},         {ST_NODIRATIME, "nodiratime"},
      {ST_SYNCHRONOUS, "sync"}, {st_nosymfollow, "nosymfollow"},
  };
  struct statvfs below;
  if (::fstatvfs(fd, &below) != 0)
    throw StartupError("cannot examine the source: " + Errno{errno}.message());
  std::vector<std::string> restrictions;
  for (const auto& [flag, name] : names)
    if ((below.f_flag & flag) != 0) restrictions.emplace_back(name);
  return restrictions;
}

bool has_sys_admin() {
  constexpr unsigned cap_sys_admin = 21;  // linux/capability.h
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    uint64_t effective = 0;
    if (word == "CapEff:" && status >> std::hex >> effective)
      return (effective >> cap_sys_admin & 1) != 0;
  }
  return true;  // mount(2) will tell
}

bool is_in_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  return false;
}

bool users_may_allow_other() {
  std::ifstream configuration("/etc/fuse.conf");
  for (std::string line; std::getline(configuration, line);) {
    std::istringstream words(line);
    std::string word;
    if (words >> word && word == "user_allow_other") return true;
  }
  return false;
}

/// The source without what is mounted below. Who may not have that leaves out what he meets.
void leave_out_mounts(Place& place) {
  auto alone = open_without_mounts(place.source.get());
  if (!alone) return;
  place.source = *std::move(alone);
  const std::vector<MountEntry> left_out = mounts_below(place.source_path);
  if (left_out.empty()) return;
  log_left_out(std::filesystem::path(left_out[0].mountpoint).lexically_relative(place.source_path));
}

}  // namespace

Place find_place(const Options& options) {
  Place place;
  place.source = open_source(options.source);
  place.source_path = real_path(options.source);
  check_not_mounted_already(place.source_path);
  place.mountpoint = find_mountpoint(options.mountpoint, place.source_path);
  if (options.one_file_system) leave_out_mounts(place);
  place.restrictions = restrictions_of(place.source.get());
  return place;
}

void check_fuse(const Options& options) {
  if (!UniqueFd(::open("/dev/fuse", O_RDWR | O_CLOEXEC))) {
    const Errno error{errno};
    if (error.value == EACCES || error.value == EPERM)
      throw StartupError("/dev/fuse may not be opened by this user: run as root, or have the " +
                         std::string("device opened to users (chmod 666 /dev/fuse)"));
    throw StartupError("cannot open /dev/fuse: " + error.message() +
                       ": load the module (modprobe fuse), or start the container with it " +
                       "(--device /dev/fuse --cap-add SYS_ADMIN)");
  }
  if (::geteuid() == 0) {
    if (has_sys_admin()) return;
    throw StartupError("this root may not mount, for lack of CAP_SYS_ADMIN: start the container " +
                       std::string("with it (--device /dev/fuse --cap-add SYS_ADMIN)"));
  }
  if (!is_in_path("fusermount3"))
    throw StartupError("fusermount3 is missing, through which users mount: install the package " +
                       std::string("fuse3, or run as root"));
  if (options.allow_other && !users_may_allow_other())
    throw StartupError("allow_other is not allowed to users: add a line user_allow_other to " +
                       std::string("/etc/fuse.conf, or run as root"));
}

bool uring_wanted(UringMode mode) {
  if (mode == UringMode::off) return false;
  if (fuse_version() < FUSE_MAKE_VERSION(3, 18)) {
    if (mode == UringMode::automatic) return false;
    throw StartupError("uring=on: libfuse is older than 3.18: use uring=auto");
  }
  char enabled = 'N';
  std::ifstream parameter("/sys/module/fuse/parameters/enable_uring");
  const bool known = static_cast<bool>(parameter >> enabled);
  if (enabled == 'Y') return true;
  if (mode == UringMode::automatic) return false;
  if (!known)
    throw StartupError("uring=on: this kernel has no FUSE over io_uring (it needs Linux 6.14): " +
                       std::string("use uring=auto"));
  throw StartupError("uring=on: it is switched off in this kernel: switch it on " +
                     std::string("(echo Y > /sys/module/fuse/parameters/enable_uring), or use ") +
                     "uring=auto");
}

}  // namespace tally::fs
