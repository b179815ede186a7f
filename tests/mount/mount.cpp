#include "tests/mount/mount.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <catch2/catch.hpp>

#include "core/result.hpp"
#include "tests/skip.hpp"

using namespace std::chrono_literals;

namespace tally::test {
namespace {

constexpr auto start_limit = 30s;
constexpr auto end_limit = 30s;

/// None of these may stand in a daemon's log.
constexpr const char* alarms[] = {"ALLOCATION IN HOT PATH", "AddressSanitizer", "LeakSanitizer",
                                  "ThreadSanitizer", "runtime error:"};

std::string below(const std::string& directory, const std::string& path) {
  return path.empty() ? directory : directory + "/" + path;
}

void make_open_directory(const std::string& path) {
  if ((::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) || ::chmod(path.c_str(), 0755) != 0) {
    throw std::system_error(errno, std::generic_category(), path);
  }
}

}  // namespace

bool can_mount() {
  const char* reason = nullptr;
  if (::geteuid() != 0) reason = "mounting needs root";
  if (::access("/dev/fuse", R_OK | W_OK) != 0) reason = "/dev/fuse is missing or closed to us";
  if (reason != nullptr) skip(reason);
  return reason == nullptr;
}

bool is_fuse_mount(const std::string& path) {
  struct statfs filesystem{};
  return ::statfs(path.c_str(), &filesystem) == 0 && filesystem.f_type == FUSE_SUPER_MAGIC;
}

void wait_for_mount(const std::string& path, ChildProcess& daemon) {
  const auto deadline = std::chrono::steady_clock::now() + start_limit;
  while (!is_fuse_mount(path)) {
    if (daemon.wait(10ms)) throw std::runtime_error("the daemon ended at once: " + daemon.output());
    if (std::chrono::steady_clock::now() > deadline)
      throw std::runtime_error("the daemon did not mount in time: " + daemon.output());
  }
}

std::vector<std::string> tallyfs_command(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{TALLYFS_BINARY};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

std::vector<std::string> injected_command(const std::string& trace, const std::string& inject,
                                          const std::vector<std::string>& arguments) {
  // The leak sanitizer does not work on what is traced.
  std::vector<std::string> command{"env",
                                   "ASAN_OPTIONS=detect_leaks=0",
                                   "strace",
                                   "-f",
                                   "-etrace=" + trace,
                                   "-einject=" + inject};
  const std::vector<std::string> traced = tallyfs_command(arguments);
  command.insert(command.end(), traced.begin(), traced.end());
  return command;
}

MountFolders::MountFolders(const std::string& parent) : folder_("mount", parent) {
  for (const std::string& path : {folder_.path(), source(), mountpoint(), native()}) {
    make_open_directory(path);
  }
}

std::string MountFolders::source(const std::string& path) const {
  return below(folder_.path() + "/source", path);
}
std::string MountFolders::mountpoint(const std::string& path) const {
  return below(folder_.path() + "/mountpoint", path);
}
std::string MountFolders::native(const std::string& path) const {
  return below(folder_.path() + "/native", path);
}

Mount::Mount(const MountFolders& folders, const Settings& settings)
    : mountpoint_(settings.over_itself ? folders.source() : folders.mountpoint()),
      lower_fd_(::open(folders.source().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  // Each mount says so if it depends on what other tests do to the machine: those of uring=on
  // switch it on in the kernel for a while; and what they all do on one filesystem may be too much
  // for a watcher, so that it doubts everything for a moment.
  std::string options = settings.options;
  for (const std::string option : {"uring=", "watch="}) {
    if (settings.options.find(option) != std::string::npos) continue;
    if (!options.empty()) options += ",";
    options += option + "off";
  }
  std::vector<std::string> arguments{"-f", "-o", options};
  arguments.push_back(folders.source());
  if (!settings.over_itself) arguments.push_back(mountpoint_);
  daemon_ = std::make_unique<ChildProcess>(tallyfs_command(arguments), settings.process);
  wait_for_mount(mountpoint_, *daemon_);
  struct stat root{};
  if (::stat(mountpoint_.c_str(), &root) == 0) {
    abort_file_ = "/sys/fs/fuse/connections/" + std::to_string(minor(root.st_dev)) + "/abort";
  }
  watchdog_.emplace(settings.life_max, daemon_->pid(), abort_file_);
  if (settings.wait_for_scan) wait_until_scanned();
}

Mount::~Mount() {
  if (!has_ended_) unmount();
}

std::string Mount::at(const std::string& path) const { return below(mountpoint_, path); }

std::string Mount::lower(const std::string& path) const {
  // By descriptor, which still leads below a mount that covers its own source.
  return below("/proc/self/fd/" + std::to_string(lower_fd_.get()), path);
}

void Mount::wait_until_scanned() {
  std::string state(64, '\0');
  while (true) {
    const ssize_t size =
        ::getxattr(mountpoint_.c_str(), "user.tally.state", state.data(), state.size());
    if (size < 0 || !std::string_view(state.data(), static_cast<size_t>(size)).starts_with("scan"))
      return;
    std::this_thread::sleep_for(2ms);
  }
}

void Mount::abort_connection() const {
  const UniqueFd file(::open(abort_file_.c_str(), O_WRONLY | O_CLOEXEC));
  if (file) [[maybe_unused]]
    const ssize_t ignored = ::write(file.get(), "1", 1);
}

void Mount::unmount() {
  const auto deadline = std::chrono::steady_clock::now() + end_limit;
  while (::umount2(mountpoint_.c_str(), 0) != 0) {
    if (errno == EINVAL || errno == ENOENT) break;  // not mounted any more
    if (errno != EBUSY || std::chrono::steady_clock::now() > deadline) {
      ::umount2(mountpoint_.c_str(), MNT_DETACH);
      FAIL_CHECK("the mount could not be taken away: " << Errno{errno}.message());
      break;
    }
    std::this_thread::sleep_for(20ms);
  }
  expect_clean_end();
}

void Mount::expect_clean_end() {
  has_ended_ = true;
  CHECK_FALSE(watchdog_->stop());
  const std::optional<int> status = daemon_->wait(end_limit);
  if (!status) {
    daemon_->signal(SIGKILL);
    abort_connection();
  }
  const std::string text = log();
  INFO("log of the daemon:\n" << text);
  CHECK(status == std::optional<int>(0));
  for (const char* alarm : alarms)
    CHECK(text.find(alarm) == std::string::npos);
  CHECK_FALSE(is_fuse_mount(mountpoint_));
}

}  // namespace tally::test
