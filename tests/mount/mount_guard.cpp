#include "tests/mount/mount_guard.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

#include <catch2/catch.hpp>

#include "core/result.hpp"

using namespace std::chrono_literals;

namespace tally::test {
namespace {

constexpr auto unmount_limit = 10s;

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// Runs in a forked child: nothing here allocates. Not a child of the test's any more, nor in its
/// session, so that whoever kills the test with all its children does not kill it, too.
[[noreturn]] void unmount_when_closed(int lifeline, const char* mountpoint) {
  ::setsid();
  if (::fork() != 0) ::_exit(0);
  // Held open here, the lifelines of others and pipes of the test would not end.
  if (lifeline > 0) ::close_range(0, static_cast<unsigned>(lifeline) - 1, 0);
  ::close_range(static_cast<unsigned>(lifeline) + 1, ~0u, 0);
  char none = 0;
  while (::read(lifeline, &none, 1) < 0 && errno == EINTR) {
  }
  while (::umount2(mountpoint, MNT_DETACH) == 0) {
  }
  ::_exit(0);
}

}  // namespace

MountGuard::MountGuard(const std::string& mountpoint) : mountpoint_(mountpoint) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail("pipe2");
  const UniqueFd watched_end(ends[0]);
  lifeline_ = UniqueFd(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) fail("fork");
  if (pid == 0) unmount_when_closed(watched_end.get(), mountpoint_.c_str());
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

MountGuard::~MountGuard() {
  if (lifeline_) unmount();
}

void MountGuard::unmount() {
  const auto deadline = std::chrono::steady_clock::now() + unmount_limit;
  while (::umount2(mountpoint_.c_str(), 0) != 0 && errno != EINVAL && errno != ENOENT) {
    if (errno != EBUSY || std::chrono::steady_clock::now() > deadline) {
      FAIL_CHECK("cannot unmount " << mountpoint_ << ": " << Errno{errno}.message());
      break;
    }
    std::this_thread::sleep_for(20ms);
  }
  lifeline_.reset();
}

MountGuard bind_mount(const std::string& directory, const std::string& mountpoint) {
  MountGuard guard(mountpoint);
  if (::mount(directory.c_str(), mountpoint.c_str(), nullptr, MS_BIND, nullptr) != 0)
    fail("bind mount at " + mountpoint);
  return guard;
}

}  // namespace tally::test
