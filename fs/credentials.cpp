#include "fs/credentials.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>

#include "core/unique_fd.hpp"

namespace tally::fs {

namespace {

constexpr uint64_t bit(int capability) { return uint64_t{1} << capability; }

/// What callers other than root act without.
constexpr uint64_t caps_of_root_only = bit(CAP_FSETID) | bit(CAP_SYS_RESOURCE);

struct CapabilitySets {
  uint64_t effective = 0;
  uint64_t permitted = 0;
  uint64_t inheritable = 0;
};

/// capget(2) and capset(2) of the calling thread. glibc has no wrappers; libcap would allocate.
Result<CapabilitySets> thread_capabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return last_error();
  const auto join = [&](auto member) {
    return uint64_t{data[0].*member} | uint64_t{data[1].*member} << 32;
  };
  return CapabilitySets{.effective = join(&__user_cap_data_struct::effective),
                        .permitted = join(&__user_cap_data_struct::permitted),
                        .inheritable = join(&__user_cap_data_struct::inheritable)};
}

Status set_thread_capabilities(const CapabilitySets& sets) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  for (unsigned half = 0; half < _LINUX_CAPABILITY_U32S_3; ++half)
    data[half] = {.effective = static_cast<uint32_t>(sets.effective >> 32 * half),
                  .permitted = static_cast<uint32_t>(sets.permitted >> 32 * half),
                  .inheritable = static_cast<uint32_t>(sets.inheritable >> 32 * half)};
  if (::syscall(SYS_capset, &header, data.data()) != 0) return last_error();
  return {};
}

/// Supplementary groups without allocation; callers with more keep the first ones.
struct GroupList {
  static constexpr std::size_t groups_max = 1024;
  std::array<gid_t, groups_max> ids = {};
  std::size_t count = 0;

  [[nodiscard]] std::span<const gid_t> span() const { return {ids.data(), count}; }
};

/// Reads the numbers of the line "Groups:\t4 24 27 \n" of a thread's status (proc_pid_status(5)) as
/// they come, because the line may be longer than any buffer.
class GroupsReader {
 public:
  explicit GroupsReader(GroupList& groups) : groups_(groups) {}

  /// False when the line has ended.
  bool feed(char c) {
    if (matched_ < label.size()) {
      if (c == label[matched_])
        ++matched_;
      else
        matched_ = c == '\n' ? 1 : 0;
      return true;
    }
    if (c >= '0' && c <= '9') {
      number_ = number_ * 10 + static_cast<gid_t>(c - '0');
      in_number_ = true;
    } else if (in_number_) {
      if (groups_.count < GroupList::groups_max) groups_.ids[groups_.count++] = number_;
      number_ = 0;
      in_number_ = false;
    }
    return c != '\n';
  }

 private:
  static constexpr std::string_view label = "\nGroups:";
  GroupList& groups_;
  std::size_t matched_ = 0;
  gid_t number_ = 0;
  bool in_number_ = false;
};

/// None of a thread that is gone or can't be seen, which gives the caller no right that it hasn't
/// got. Fails where the daemon lacks the means to look.
Status read_groups(pid_t thread, GroupList& groups) {
  groups.count = 0;
  // A thread has an entry of its own under /proc even though listings show only processes.
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/status", thread);
  const UniqueFd fd(::open(path.data(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    const bool lacks = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
    return lacks ? Status(last_error()) : Status();
  }
  GroupsReader reader(groups);
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t length = ::read(fd.get(), buffer.data(), buffer.size());
    if (length <= 0) return {};
    for (const char c : std::span(buffer.data(), static_cast<std::size_t>(length)))
      if (!reader.feed(c)) return {};
  }
}

/// Who the calling thread is at present. Undetermined until it first becomes somebody, and after a
/// failure.
struct ThreadIdentity {
  bool known = false;
  uid_t uid = 0;
  gid_t gid = 0;
  uint64_t capabilities = 0;
  bool groups_known = false;
  GroupList groups;
};
thread_local ThreadIdentity current;

Status set_groups(std::span<const gid_t> groups) {
  if (current.groups_known && std::ranges::equal(current.groups.span(), groups)) return {};
  current.groups_known = false;
  if (::syscall(SYS_setgroups, groups.size(), groups.data()) != 0) return last_error();
  std::ranges::copy(groups, current.groups.ids.begin());
  current.groups.count = groups.size();
  current.groups_known = true;
  return {};
}

/// setfsuid(2) and setfsgid(2) tell of a failure only by not doing it.
bool set_filesystem_id(long call, uint32_t id) {
  ::syscall(call, id);
  return static_cast<uint32_t>(::syscall(call, id)) == id;
}

/// Whether this user namespace refuses setgroups(2) for good (user_namespaces(7)), as those that
/// users make for themselves do.
bool groups_are_denied() {
  const UniqueFd fd(::open("/proc/self/setgroups", O_RDONLY | O_CLOEXEC));
  std::array<char, 4> word = {};
  return ::read(fd.get(), word.data(), word.size()) == 4 &&
         std::string_view(word.data(), word.size()) == "deny";
}

Status switch_to(uid_t uid, gid_t gid, uint64_t capabilities, bool groups_too) {
  if (current.known && current.uid == uid && current.gid == gid &&
      current.capabilities == capabilities)
    return {};
  current.known = false;
  // The groups of somebody else must not stay; those of the same user may.
  if (groups_too)
    if (const Status cleared = set_groups({}); !cleared) return cleared;
  if (!set_filesystem_id(SYS_setfsgid, gid) || !set_filesystem_id(SYS_setfsuid, uid))
    return failure(EPERM);

  // The kernel has dropped or raised the capabilities that concern files (capabilities(7), "Effect
  // of user ID changes"), so they are set in any case.
  Result<CapabilitySets> sets = thread_capabilities();
  if (!sets) return std::unexpected(sets.error());
  sets->effective = capabilities;
  if (const Status set = set_thread_capabilities(*sets); !set) return set;
  current.known = true;
  current.uid = uid;
  current.gid = gid;
  current.capabilities = capabilities;
  return {};
}

/// The umask of this thread alone: threads share one until they leave it (unshare(2), CLONE_FS).
Status set_umask(mode_t mask) {
  struct ThreadUmask {
    bool own = false;
    mode_t mask = 0;
  };
  static thread_local ThreadUmask current_umask;
  if (!current_umask.own) {
    if (::unshare(CLONE_FS) != 0) return last_error();
    ::umask(mask);
    current_umask = {.own = true, .mask = mask};
  } else if (current_umask.mask != mask) {
    ::umask(mask);
    current_umask.mask = mask;
  }
  return {};
}

}  // namespace

Credentials::Credentials() : daemon_uid_(::geteuid()), daemon_gid_(::getegid()) {
  constexpr uint64_t needed = bit(CAP_SETUID) | bit(CAP_SETGID);
  const Result<CapabilitySets> sets = thread_capabilities();
  if (sets) capabilities_ = sets->effective;
  can_switch_ = (capabilities_ & needed) == needed;
  can_set_groups_ = can_switch_ && !groups_are_denied();
}

Status Credentials::become(const Caller& caller) const {
  if (!can_switch_) return {};
  return switch_to(caller.uid, caller.gid,
                   caller.uid == 0 ? capabilities_ : capabilities_ & ~caps_of_root_only,
                   can_set_groups_);
}

Status Credentials::become_creator(const Caller& caller) const {
  if (const Status set = set_umask(caller.umask); !set) return set;
  if (const Status switched = become(caller); !switched) return switched;
  // Whoever has CAP_FSETID is not asked for groups.
  if (!can_set_groups_ || caller.uid == 0) return {};
  GroupList groups;
  if (const Status read = read_groups(caller.pid, groups); !read) return read;
  return set_groups(groups.span());
}

Status Credentials::become_daemon() const {
  if (!can_switch_) return {};
  return switch_to(daemon_uid_, daemon_gid_, capabilities_, can_set_groups_);
}

}  // namespace tally::fs
