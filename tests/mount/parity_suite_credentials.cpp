// The columns of the parity suite: who makes the calls.

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

constexpr uint64_t bit(int capability) { return uint64_t{1} << capability; }

void require(bool done) {
  if (!done) ::_exit(3);
}

/// Of the capabilities that the process is permitted, leaves those in `mask`.
void limit_capabilities(uint64_t mask) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  require(::syscall(SYS_capget, &header, data) == 0);
  for (auto& half : data) {
    half.permitted &= static_cast<uint32_t>(mask);
    half.effective = half.permitted;
    mask >>= 32;
  }
  require(::syscall(SYS_capset, &header, data) == 0);
}

void write_to(const char* path, const std::string& text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  require(fd >= 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  ::close(fd);
}

void enter_own_namespace(const Credential& credential) {
  require(::prctl(PR_SET_DUMPABLE, 1) == 0);  // else /proc/self belongs to root
  require(::unshare(CLONE_NEWUSER) == 0);
  write_to("/proc/self/setgroups", "deny");
  write_to("/proc/self/uid_map", "0 " + std::to_string(credential.user) + " 1");
  write_to("/proc/self/gid_map", "0 " + std::to_string(credential.group) + " 1");
}

}  // namespace

std::span<const Credential> suite_credentials() {
  static const std::vector<Credential> all = {
      {.name = "root"},
      {.name = "root without CAP_FSETID", .capabilities_dropped = bit(CAP_FSETID)},
      {.name = "root without capabilities", .capabilities_dropped = ~uint64_t{0}},
      {.name = "the owner", .user = suite_owner, .group = suite_owner, .groups = {suite_group}},
      {.name = "a member of the group",
       .user = suite_member,
       .group = suite_member,
       .groups = {suite_group}},
      {.name = "another user", .user = suite_other, .group = suite_other},
      {.name = "the owner with CAP_FSETID",
       .user = suite_owner,
       .group = suite_owner,
       .groups = {suite_group},
       .capabilities_kept = bit(CAP_FSETID)},
      {.name = "the owner as root of a user namespace",
       .user = suite_owner,
       .group = suite_owner,
       .groups = {suite_group},
       .own_namespace = true},
  };
  return all;
}

void become(const Credential& credential) {
  require(::setgroups(credential.groups.size(), credential.groups.data()) == 0);
  if (credential.user == 0) return limit_capabilities(~credential.capabilities_dropped);
  require(::prctl(PR_SET_KEEPCAPS, credential.capabilities_kept != 0 ? 1 : 0) == 0);
  require(::setresgid(credential.group, credential.group, credential.group) == 0);
  require(::setresuid(credential.user, credential.user, credential.user) == 0);
  if (credential.capabilities_kept != 0) limit_capabilities(credential.capabilities_kept);
  if (credential.own_namespace) enter_own_namespace(credential);
}

}  // namespace tally::test
