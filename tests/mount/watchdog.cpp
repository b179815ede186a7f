#include "tests/mount/watchdog.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string_view>
#include <system_error>

namespace tally::test {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// Runs in a forked child: nothing here allocates.
[[noreturn]] void watch(int lifeline, int limit_ms, pid_t daemon, const char* abort_file) {
  // Held open elsewhere, pipes of other tests' programs would not end.
  if (lifeline > 3) ::close_range(3, static_cast<unsigned>(lifeline) - 1, 0);
  ::close_range(static_cast<unsigned>(lifeline) + 1, ~0u, 0);
  pollfd ended{lifeline, POLLIN, 0};
  if (::poll(&ended, 1, limit_ms) != 0) ::_exit(0);
  constexpr std::string_view message = "the watchdog ends a mount that lived too long\n";
  [[maybe_unused]] ssize_t ignored = ::write(STDERR_FILENO, message.data(), message.size());
  ::kill(daemon, SIGKILL);
  const int abort_fd = ::open(abort_file, O_WRONLY | O_CLOEXEC);
  if (abort_fd >= 0) ignored = ::write(abort_fd, "1", 1);
  ::_exit(1);
}

}  // namespace

Watchdog::Watchdog(std::chrono::milliseconds limit, pid_t daemon, const std::string& abort_file) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail("pipe2");
  watched_end_ = UniqueFd(ends[0]);
  lifeline_ = UniqueFd(ends[1]);
  pid_ = ::fork();
  if (pid_ < 0) fail("fork");
  if (pid_ == 0)
    watch(watched_end_.get(), static_cast<int>(limit.count()), daemon, abort_file.c_str());
}

bool Watchdog::stop() {
  if (pid_ < 0) return fired_;
  // Written, not closed: a forked child of the test may hold another copy.
  [[maybe_unused]] const ssize_t ignored = ::write(lifeline_.get(), "", 1);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  fired_ = status != 0;
  return fired_;
}

}  // namespace tally::test
