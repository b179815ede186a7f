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
#include <utility>

#include "core/unique_fd.hpp"

namespace tally::fs {

namespace {

constexpr uint64_t bit(int capability) { return uint64_t{1} << capability; }

/// What callers other than root act without.
constexpr uint64_t caps_of_root_only = bit(CAP_FSETID) | bit(CAP_SYS_RESOURCE);

/// What it takes to become somebody, which says nothing about files.
constexpr uint64_t caps_to_switch = bit(CAP_SETUID) | bit(CAP_SETGID);

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

/// What /proc tells of a caller.
struct Privileges {
  GroupList groups;
  uint64_t capabilities = 0;  // effective ones, in whatever user namespace it is
};

/// Reads the lines "Groups:\t4 24 27 \n" and "CapEff:\t000001ffffffffff\n", in this order, of a
/// thread's status (proc_pid_status(5)) as they come, because a line may be longer than any buffer.
class StatusReader {
 public:
  explicit StatusReader(Privileges& privileges) : privileges_(privileges) {}

  /// False when there is nothing more to read.
  bool feed(char c) {
    if (c == '\n') return end_line();
    switch (line_) {
      case Line::begun:
        begin_line(c);
        break;
      case Line::groups:
        add_to_groups(c);
        break;
      case Line::capabilities:
        add_hexadecimal(c);
        break;
      case Line::other:
        break;
    }
    return true;
  }

 private:
  enum class Line { begun, groups, capabilities, other };

  void begin_line(char c) {
    if (c == ':') {
      const std::string_view label(label_.data(), label_length_);
      line_ = label == "Groups"   ? Line::groups
              : label == "CapEff" ? Line::capabilities
                                  : Line::other;
    } else if (label_length_ < label_.size()) {
      label_[label_length_++] = c;
    } else {
      line_ = Line::other;
    }
  }

  void add_to_groups(char c) {
    if (c >= '0' && c <= '9') {
      number_ = number_ * 10 + static_cast<gid_t>(c - '0');
      in_number_ = true;
      return;
    }
    GroupList& groups = privileges_.groups;
    if (in_number_ && groups.count < GroupList::groups_max) groups.ids[groups.count++] = number_;
    number_ = 0;
    in_number_ = false;
  }

  void add_hexadecimal(char c) {
    if (c >= '0' && c <= '9')
      privileges_.capabilities = privileges_.capabilities << 4 | static_cast<uint64_t>(c - '0');
    if (c >= 'a' && c <= 'f')
      privileges_.capabilities =
          privileges_.capabilities << 4 | static_cast<uint64_t>(c - 'a' + 10);
  }

  bool end_line() {
    if (line_ == Line::groups) add_to_groups(' ');
    label_length_ = 0;
    return std::exchange(line_, Line::begun) != Line::capabilities;
  }

  Privileges& privileges_;
  Line line_ = Line::begun;
  std::array<char, 8> label_ = {};
  std::size_t label_length_ = 0;
  gid_t number_ = 0;
  bool in_number_ = false;
};

/// A path below the directory of a thread in /proc. It has one of its own even though listings show
/// only processes.
std::array<char, 40> thread_path(pid_t thread, const char* below) {
  std::array<char, 40> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/%s", thread, below);
  return path;
}

/// None of a thread that is gone or can't be seen, which gives the caller no right that it hasn't
/// got. Fails where the daemon lacks the means to look.
Status read_privileges(pid_t thread, Privileges& privileges) {
  privileges.groups.count = 0;
  privileges.capabilities = 0;
  const UniqueFd fd(::open(thread_path(thread, "status").data(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    const bool lacks = errno == EMFILE || errno == ENFILE || errno == ENOMEM;
    return lacks ? Status(last_error()) : Status();
  }
  StatusReader reader(privileges);
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t length = ::read(fd.get(), buffer.data(), buffer.size());
    if (length <= 0) return {};
    for (const char c : std::span(buffer.data(), static_cast<std::size_t>(length)))
      if (!reader.feed(c)) return {};
  }
}

/// Whether the thread's capabilities mean what ours do: those in a user namespace of its own say
/// nothing about our files.
bool shares_user_namespace(pid_t thread) {
  struct stat ours;
  struct stat theirs;
  return ::stat("/proc/self/ns/user", &ours) == 0 &&
         ::stat(thread_path(thread, "ns/user").data(), &theirs) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
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
  const Result<CapabilitySets> sets = thread_capabilities();
  if (sets) capabilities_ = sets->effective;
  can_switch_ = (capabilities_ & caps_to_switch) == caps_to_switch;
  can_set_groups_ = can_switch_ && !groups_are_denied();
}

Status Credentials::become(const Caller& caller) const {
  if (!can_switch_) return {};
  return switch_to(caller.uid, caller.gid,
                   caller.uid == 0 ? capabilities_ : capabilities_ & ~caps_of_root_only,
                   can_set_groups_);
}

Status Credentials::become_owner(uid_t uid, gid_t gid) const {
  if (!can_switch_) return {};
  return switch_to(uid, gid, uid == 0 ? capabilities_ : capabilities_ & ~bit(CAP_SYS_RESOURCE),
                   can_set_groups_);
}

Status Credentials::become_creator(const Caller& caller) const {
  if (const Status set = set_umask(caller.umask); !set) return set;
  // The kernel has checked of root what depends on capabilities (fs/inode.c, mode_strip_sgid).
  return caller.uid == 0 ? become(caller) : become_exactly(caller);
}

Status Credentials::become_exactly(const Caller& caller) const {
  return become_with(caller, caps_of_root_only);
}

Status Credentials::become_unprivileged(const Caller& caller) const {
  return become_with(caller, ~caps_to_switch);
}

Status Credentials::become_with(const Caller& caller, uint64_t checked) const {
  if (!can_switch_) return {};
  Privileges privileges;
  if (const Status read = read_privileges(caller.pid, privileges); !read) return read;
  uint64_t held = privileges.capabilities & checked;
  if (held != 0) {
    // To see the namespace of another user takes a capability, or being that user.
    if (const Status became = become_daemon(); !became) return became;
    if (!shares_user_namespace(caller.pid)) held = 0;
  }
  const uint64_t capabilities = capabilities_ & (~checked | held);
  const Status switched = switch_to(caller.uid, caller.gid, capabilities, can_set_groups_);
  if (!switched || !can_set_groups_) return switched;
  return set_groups(privileges.groups.span());
}

bool Credentials::holds(const Caller& caller, int capability) const {
  Privileges privileges;
  return read_privileges(caller.pid, privileges) &&
         (privileges.capabilities & bit(capability)) != 0 && become_daemon() &&
         shares_user_namespace(caller.pid);
}

Status Credentials::become_daemon() const {
  if (!can_switch_) return {};
  return switch_to(daemon_uid_, daemon_gid_, capabilities_, can_set_groups_);
}

}  // namespace tally::fs
