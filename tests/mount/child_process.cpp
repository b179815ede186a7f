#include "tests/mount/child_process.hpp"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <sstream>
#include <system_error>

#include "tests/skip.hpp"

// glibc 2.36 forgot that this header has C linkage.
extern "C" {
#include <sys/pidfd.h>
}

namespace tally::test {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

[[noreturn]] void become(char* const* arguments, const ChildProcess::Settings& settings,
                         int output_fd) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
#ifdef __SANITIZE_THREAD__
  // The thread sanitizer of gcc 12 cannot live with the address randomisation of new kernels.
  ::personality(ADDR_NO_RANDOMIZE);
#endif
  ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
  ::dup2(output_fd, STDOUT_FILENO);
  ::dup2(output_fd, STDERR_FILENO);
  if (settings.descriptors_max) {
    const struct rlimit limit{*settings.descriptors_max, *settings.descriptors_max};
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) ::_exit(126);
  }
  if (settings.file_size && ::setrlimit(RLIMIT_FSIZE, &*settings.file_size) != 0) ::_exit(126);
  if (!settings.working_directory.empty() && ::chdir(settings.working_directory.c_str()) != 0) {
    ::_exit(126);
  }
  ::execvp(arguments[0], arguments);
  ::_exit(127);
}

bool is_in_path(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

/// Waits for a child's end: its exit status, or 128 + the signal that killed it.
int status_of(pid_t child) {
  int status = 0;
  if (::waitpid(child, &status, 0) != child) fail("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command, const Settings& settings)
    : output_(::memfd_create("output", MFD_CLOEXEC)) {
  if (!output_) fail("memfd_create");
  // Appending, because a child and its own children write to the same file.
  ::fcntl(output_.get(), F_SETFL, O_APPEND);
  std::vector<char*> arguments;
  for (const std::string& word : command)
    arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) fail("fork");
  if (pid_ == 0) become(arguments.data(), settings, output_.get());
  pid_fd_ = UniqueFd(::pidfd_open(pid_, 0));
  if (!pid_fd_) fail("pidfd_open");
}

ChildProcess::~ChildProcess() {
  if (status_) return;
  signal(SIGKILL);
  wait(std::chrono::seconds(10));
}

void ChildProcess::signal(int number) const {
  if (!status_) ::pidfd_send_signal(pid_fd_.get(), number, nullptr, 0);
}

std::optional<int> ChildProcess::wait(std::chrono::milliseconds limit) {
  if (status_) return status_;
  struct pollfd ended{pid_fd_.get(), POLLIN, 0};
  if (::poll(&ended, 1, static_cast<int>(limit.count())) != 1) return std::nullopt;
  status_ = status_of(pid_);
  return status_;
}

int run_as(uid_t user, gid_t group, const std::function<int()>& action) {
  const pid_t child = ::fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    const bool is_user =
        ::setgroups(0, nullptr) == 0 && ::setgid(group) == 0 && ::setuid(user) == 0;
    ::_exit(is_user ? action() : 127);
  }
  return status_of(child);
}

std::string ChildProcess::output() const {
  std::string text;
  char buffer[4096];
  ssize_t length = 0;
  while ((length = ::pread(output_.get(), buffer, sizeof buffer, static_cast<off_t>(text.size()))) >
         0) {
    text.append(buffer, static_cast<size_t>(length));
  }
  return text;
}

Finished run(const std::vector<std::string>& command, const std::string& working_directory,
             std::chrono::seconds limit) {
  ChildProcess child(command, {.working_directory = working_directory});
  const std::optional<int> status = child.wait(limit);
  return {status.value_or(-1), child.output()};
}

bool has_programs(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (is_in_path(name)) continue;
    skip(name + " is not installed");
    return false;
  }
  return true;
}

}  // namespace tally::test
