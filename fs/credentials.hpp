#pragma once

#include <sys/types.h>

#include <cstdint>

#include "core/result.hpp"

namespace tally::fs {

/// Who asked for a request (fuse_ctx): `pid` is the thread's, as /proc names it.
struct Caller {
  uid_t uid;
  gid_t gid;
  pid_t pid;
  mode_t umask = 0;  ///< of requests that create something with a mode
};

/// Makes worker threads act on the lower filesystem in the name of their callers, so that whatever
/// is created belongs to the right owner from its first moment.
///
/// A thread stays who it became until it becomes somebody else: consecutive requests of one caller
/// cost no system call, others about 5 µs. So every handler that changes anything says first whose
/// work it does. Those that only read don't: whoever the thread was last has the daemon's
/// capabilities to read, so only a lower filesystem whose server judges by user could tell.
///
/// Permissions were checked by the kernel (default_permissions) and must not be checked a second
/// time, so all capabilities of the daemon stay effective, except for callers other than root
/// CAP_FSETID (their writes clear setuid and setgid bits) and CAP_SYS_RESOURCE (they must not use
/// up the blocks reserved for root). Where that may be too coarse, become_exactly() asks.
///
/// Thread-safe; raw system calls, because glibc's wrappers would change every thread. Allocates
/// nothing. Where the daemon may not switch (an unprivileged mount) nothing but the umask changes;
/// where nobody may set groups (a user namespace) they stay the daemon's.
class Credentials {
 public:
  /// Looks at the calling thread's capabilities. Call it before any thread becomes anybody.
  Credentials();

  /// For writing and truncating: the caller's fsuid, fsgid and capabilities. EPERM if the kernel
  /// refuses (an id that has no meaning in the daemon's user namespace).
  [[nodiscard]] Status become(const Caller& caller) const;

  /// For creating: become_exactly(), and the caller's umask, which the lower filesystem applies
  /// unless the directory has a default ACL. The umask also where the daemon may not switch; ENOMEM
  /// if the thread can't have one of its own.
  [[nodiscard]] Status become_creator(const Caller& caller) const;

  /// For what clears set-id bits or not: become(), with the caller's supplementary groups, and of
  /// CAP_FSETID and CAP_SYS_RESOURCE those that it holds, as /proc tells (none of a caller that has
  /// exited already, or is in another user namespace). Costs about 10 µs. EMFILE or ENFILE if there
  /// is no descriptor to read with.
  [[nodiscard]] Status become_exactly(const Caller& caller) const;

  /// For what the kernel has left unchecked: makes `call`, which returns a Status, as
  /// become_exactly(), with no capability at all that the caller doesn't hold. Afterwards the
  /// thread is the daemon, whatever happened: without capabilities it could not even read for
  /// others.
  template <class Call>
  [[nodiscard]] Status call_unprivileged(const Caller& caller, Call call) const {
    Status done = become_unprivileged(caller);
    if (done) done = call();
    const Status back = become_daemon();
    return done ? back : done;
  }

  /// For what the kernel writes back of the mappings of a file that this user owns: as become(),
  /// but set-id bits stay, as they do natively.
  [[nodiscard]] Status become_owner(uid_t uid, gid_t gid) const;

  /// Whether the caller holds a capability (CAP_…) in our user namespace. The thread may become the
  /// daemon.
  [[nodiscard]] bool holds(const Caller& caller, int capability) const;

  /// For everything that has been checked completely (chmod, chown, times, xattrs, links, renames):
  /// the daemon itself, with every capability it has.
  [[nodiscard]] Status become_daemon() const;

  [[nodiscard]] bool can_switch() const { return can_switch_; }

 private:
  [[nodiscard]] Status become_unprivileged(const Caller& caller) const;

  /// become(), with of the capabilities in `checked` only those that the caller holds.
  [[nodiscard]] Status become_with(const Caller& caller, uint64_t checked) const;

  uid_t daemon_uid_;
  gid_t daemon_gid_;
  uint64_t capabilities_ = 0;  // effective ones of the daemon
  bool can_switch_ = false;
  bool can_set_groups_ = false;
};

}  // namespace tally::fs
