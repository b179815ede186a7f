#include "tools/background.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace tally::tools {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

/// Exits as the child says through the pipe: one byte when it is live, or its end.
[[noreturn]] void wait_for(pid_t child, const UniqueFd& from_child) {
  char live = 0;
  ssize_t received = 0;
  do
    received = ::read(from_child.get(), &live, 1);
  while (received < 0 && errno == EINTR);
  if (received == 1) ::_exit(EXIT_SUCCESS);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) != EXIT_SUCCESS) ::_exit(WEXITSTATUS(status));
  if (WIFSIGNALED(status))
    std::fprintf(stderr, "tallyfs: ended by signal %d (%s) before the mount was live\n",
                 WTERMSIG(status), strsignal(WTERMSIG(status)));
  ::_exit(EXIT_FAILURE);
}

}  // namespace

Background::Background() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail("pipe");
  UniqueFd from_child(ends[0]);
  to_parent_.reset(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) fail("fork");
  if (child > 0) {
    to_parent_.reset();
    wait_for(child, from_child);
  }
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(EXIT_FAILURE);  // it went before that call
}

void Background::live() {
  ::prctl(PR_SET_PDEATHSIG, 0);
  ::setsid();
  if (::chdir("/") != 0) fail("chdir /");
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) fail("/dev/null");
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    ::dup2(null.get(), standard);
  const char live = 1;
  // Without a reader the parent is gone, and nobody waits for an answer; SIGPIPE is handled by
  // then.
  static_cast<void>(!::write(to_parent_.get(), &live, 1));
  to_parent_.reset();
}

}  // namespace tally::tools
