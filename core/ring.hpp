#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include <liburing.h>

#include "core/result.hpp"

namespace tally {

/// Sole owner of one io_uring: opens and closes are queued, go to the kernel in one system call,
/// and complete in any order. Move-only. Everything is taken by create() (the rings are mmap'd);
/// nothing is allocated afterwards.
///
///     while (more && ring.queue_open(fd, name, flags, slot)) ...      // false: full, submit first
///     ring.submit_and_wait(1);
///     while (auto done = ring.next_completion()) use(done->slot, done->result);
///
/// Threads: a ring may be created on any thread, but the first to call submit_and_wait() becomes
/// its owner: only that thread may use it from then on, and destroy it while something is in flight
/// (IORING_SETUP_SINGLE_ISSUER; the kernel answers EEXIST to any other).
class Ring {
 public:
  /// The end of one queued open.
  struct Completion {
    uint32_t slot;   ///< as given when it was queued
    int32_t result;  ///< the new descriptor, or a negative errno
  };

  /// A ring for at most capacity() outstanding operations: `entries` rounded up to a power of two.
  /// ENOSYS or EPERM where io_uring is missing or forbidden (kernel older than 5.6, seccomp,
  /// kernel.io_uring_disabled), ENOMEM or EMFILE where resources ran out: callers fall back to
  /// plain system calls on any error.
  static Result<Ring> create(unsigned entries);

  Ring(Ring&& other) noexcept;
  Ring& operator=(Ring&& other) noexcept;

  /// Waits until the kernel has finished everything it was given, then frees the ring.
  /// Queued opens that were never submitted are dropped, descriptors given to queue_close() are
  /// closed, and so are those of opens whose completion nobody took.
  ~Ring();

  /// Queues openat(dir_fd, name, flags). `name` must stay valid until the submit_and_wait() that
  /// follows returned success (the kernel copies it then); O_CLOEXEC is up to the caller. On
  /// completion the descriptor belongs to whoever takes the Completion.
  /// False, with nothing queued, when capacity() operations are outstanding.
  [[nodiscard]] bool queue_open(int dir_fd, const char* name, int flags, uint32_t slot);

  /// Queues close(fd). From then on the descriptor belongs to the ring; there is no completion.
  /// False, with `fd` still the caller's, when capacity() operations are outstanding.
  [[nodiscard]] bool queue_close(int fd);

  /// Submits everything queued in one system call and waits until at least `min_completions` opens
  /// (clamped to those outstanding) and every close so far are done; with 0 it waits for nothing,
  /// though the kernel mostly closes before it returns. Signals don't end the wait.
  /// On failure (EAGAIN, ENOMEM: the kernel is short of memory) what was not submitted stays queued
  /// and a later call tries again.
  Status submit_and_wait(unsigned min_completions);

  /// The next completion that is ready, in no particular order; nothing when there is none.
  /// May be mixed freely with queueing. Makes no system call.
  std::optional<Completion> next_completion();

  /// Operations queued or in flight, whose completion was not taken yet; closes included.
  [[nodiscard]] unsigned outstanding() const { return opens_ + closes_; }
  [[nodiscard]] unsigned capacity() const { return capacity_; }

  /// For tests of fallbacks: while not 0, create() fails with this errno in the whole process.
  static inline std::atomic<int> create_error_for_tests = 0;

  /// Likewise: while not 0, submit_and_wait() submits nothing and fails with this errno.
  static inline std::atomic<int> submit_error_for_tests = 0;

 private:
  Ring(const io_uring& ring, unsigned capacity, bool disabled);

  io_uring_sqe* next_sqe();
  void drop_unsubmitted();
  void drain();

  io_uring ring_;
  unsigned capacity_ = 0;  // 0: moved from
  unsigned opens_ = 0;
  unsigned closes_ = 0;
  bool disabled_ = false;  // IORING_SETUP_R_DISABLED: the first submission enables it
};

}  // namespace tally
