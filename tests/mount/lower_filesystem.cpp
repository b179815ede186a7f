#include "tests/mount/lower_filesystem.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include "core/unique_fd.hpp"
#include "tests/mount/child_process.hpp"
#include "tests/skip.hpp"

namespace tally::test {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

bool is_known_to_kernel(const std::string& type) {
  std::ifstream known("/proc/filesystems");
  for (std::string word; known >> word;)
    if (word == type) return true;
  return false;
}

void run_or_throw(const std::vector<std::string>& command) {
  const Finished finished = run(command);
  if (finished.status != 0) throw std::runtime_error(command[0] + ": " + finished.output);
}

void make_image(const std::string& path, LowerKind kind,
                const LowerFilesystem::Settings& settings) {
  const UniqueFd image(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!image || ::ftruncate(image.get(), static_cast<off_t>(settings.size_mib << 20)) != 0)
    fail(path);
  std::vector<std::string> command{std::string("mkfs.") + name_of(kind), "-q"};
  command.insert(command.end(), settings.mkfs_options.begin(), settings.mkfs_options.end());
  command.push_back(path);
  run_or_throw(command);
}

/// `mount -o loop` finds a free device, again if somebody else was faster, and has the kernel give
/// it back with the mount.
void mount_image(const std::string& image, LowerKind kind, const std::string& options,
                 const std::string& mountpoint) {
  run_or_throw({"mount", "-t", name_of(kind), "-o", "loop" + (options.empty() ? "" : "," + options),
                image, mountpoint});
}

void mount_tmpfs(const LowerFilesystem::Settings& settings, const std::string& mountpoint) {
  const std::string size = "size=" + std::to_string(settings.size_mib) + "m";
  const std::string& options = settings.mount_options;
  run_or_throw({"mount", "-t", "tmpfs", "-o", size + (options.empty() ? "" : "," + options),
                "tallyfs-test", mountpoint});
}

}  // namespace

const char* name_of(LowerKind kind) {
  switch (kind) {
    case LowerKind::ext4:
      return "ext4";
    case LowerKind::xfs:
      return "xfs";
    case LowerKind::btrfs:
      return "btrfs";
    case LowerKind::tmpfs:
      return "tmpfs";
  }
  return "";
}

std::ostream& operator<<(std::ostream& out, LowerKind kind) { return out << name_of(kind); }

bool can_mount_lower(LowerKind kind) {
  const std::string type = name_of(kind);
  if (::geteuid() != 0) return skip("mounting needs root"), false;
  if (!is_known_to_kernel(type)) static_cast<void>(run({"modprobe", type}));
  if (!is_known_to_kernel(type)) return skip("this kernel has no " + type), false;
  if (kind == LowerKind::tmpfs) return true;
  if (::access("/dev/loop-control", R_OK) != 0)
    return skip("there are no loop devices (/dev/loop-control)"), false;
  return has_programs({"mount", "mkfs." + type});
}

LowerFilesystem::LowerFilesystem(LowerKind kind, const Settings& settings)
    : folder_("lower"),
      path_(settings.mountpoint.empty() ? folder_.path() + "/" + name_of(kind)
                                        : settings.mountpoint),
      guard_(path_) {
  if (settings.mountpoint.empty() && ::mkdir(path_.c_str(), 0755) != 0) fail(path_);
  if (kind == LowerKind::tmpfs) {
    mount_tmpfs(settings, path_);
  } else {
    const std::string image = folder_.path() + "/image";
    make_image(image, kind, settings);
    mount_image(image, kind, settings.mount_options, path_);
    ::unlink(image.c_str());  // the loop device has it open
  }
  for (const std::string& path : {folder_.path(), path_})
    if (::chmod(path.c_str(), 0755) != 0) fail(path);
}

}  // namespace tally::test
