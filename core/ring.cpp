#include "core/ring.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace tally {
namespace {

// What a completion belongs to, in its user_data: opens carry their slot, everything else this.
constexpr uint64_t no_slot = UINT64_MAX;

// One thread submits and reaps, and completions run only when it asks for them: no interrupts of
// the owner between batches. SUBMIT_ALL keeps a batch whole when one of its requests is malformed.
// R_DISABLED postpones the choice of the owning thread from creation to first use.
constexpr unsigned preferred_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED;

}  // namespace

Result<Ring> Ring::create(unsigned entries) {
  if (const int forced = create_error_for_tests.load()) return failure(forced);
  io_uring ring;
  io_uring_params params{};
  params.flags = preferred_flags;
  int status = io_uring_queue_init_params(entries, &ring, &params);
  if (status == -EINVAL) {  // before kernel 6.1 some of the flags are unknown
    params = {};
    status = io_uring_queue_init_params(entries, &ring, &params);
  }
  if (status < 0) return failure(-status);
  // This feature and OPENAT came with the same kernel, 5.6; without it opens would fail one by one.
  if ((params.features & IORING_FEAT_RW_CUR_POS) == 0) {
    io_uring_queue_exit(&ring);
    return failure(ENOSYS);
  }
  return Ring(ring, params.sq_entries, (params.flags & IORING_SETUP_R_DISABLED) != 0);
}

Ring::Ring(const io_uring& ring, unsigned capacity, bool disabled)
    : ring_(ring), capacity_(capacity), disabled_(disabled) {}

Ring::Ring(Ring&& other) noexcept
    : ring_(other.ring_),
      capacity_(std::exchange(other.capacity_, 0)),
      opens_(std::exchange(other.opens_, 0)),
      closes_(std::exchange(other.closes_, 0)),
      disabled_(other.disabled_) {}

Ring& Ring::operator=(Ring&& other) noexcept {
  std::swap(ring_, other.ring_);
  std::swap(capacity_, other.capacity_);
  std::swap(opens_, other.opens_);
  std::swap(closes_, other.closes_);
  std::swap(disabled_, other.disabled_);
  return *this;
}

Ring::~Ring() {
  if (capacity_ == 0) return;
  drop_unsubmitted();
  drain();
  io_uring_queue_exit(&ring_);
}

io_uring_sqe* Ring::next_sqe() {
  // As many completions as this fit into the completion ring (twice as long) without overflow.
  if (outstanding() >= capacity_) return nullptr;
  return io_uring_get_sqe(&ring_);
}

bool Ring::queue_open(int dir_fd, const char* name, int flags, uint32_t slot) {
  io_uring_sqe* sqe = next_sqe();
  if (sqe == nullptr) return false;
  io_uring_prep_openat(sqe, dir_fd, name, flags, 0);
  io_uring_sqe_set_data64(sqe, slot);
  ++opens_;
  return true;
}

bool Ring::queue_close(int fd) {
  io_uring_sqe* sqe = next_sqe();
  if (sqe == nullptr) return false;
  io_uring_prep_close(sqe, fd);
  io_uring_sqe_set_data64(sqe, no_slot);
  ++closes_;
  return true;
}

Status Ring::submit_and_wait(unsigned min_completions) {
  if (const int forced = submit_error_for_tests.load()) return failure(forced);
  if (disabled_) {
    // The shared library of liburing 2.3 forgot to export io_uring_enable_rings().
    if (::syscall(SYS_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) <
        0)
      return last_error();
    disabled_ = false;
  }
  // The kernel counts completions of every kind, so waiting for n opens means waiting for all
  // closes too; those finish inline.
  const unsigned wanted = min_completions == 0 ? 0 : std::min(min_completions, opens_) + closes_;
  while (true) {
    const int status = io_uring_submit_and_wait(&ring_, wanted);
    if (status < 0 && status != -EINTR) return failure(-status);
    // A signal shows as EINTR only when nothing was submitted, otherwise as too few completions.
    if (status >= 0 && io_uring_cq_ready(&ring_) >= wanted && io_uring_sq_ready(&ring_) == 0)
      return {};
  }
}

std::optional<Ring::Completion> Ring::next_completion() {
  unsigned head;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    const uint64_t slot = cqe->user_data;
    const int32_t result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    if (slot != no_slot) {
      --opens_;
      return Completion{static_cast<uint32_t>(slot), result};
    }
    --closes_;
  }
  return std::nullopt;
}

void Ring::drop_unsubmitted() {
  // liburing 2.3 offers no walk over unsubmitted requests: they lie between the kernel's head and
  // our tail, wherever an earlier, failed submission stopped.
  const unsigned first = *ring_.sq.khead;
  const unsigned count = io_uring_sq_ready(&ring_);
  for (unsigned i = 0; i < count; ++i) {
    const io_uring_sqe& sqe = ring_.sq.sqes[(first + i) & ring_.sq.ring_mask];
    if (sqe.user_data == no_slot) {
      ::close(sqe.fd);
      --closes_;
    } else {
      --opens_;
    }
  }
}

void Ring::drain() {
  while (true) {
    while (const auto done = next_completion())
      if (done->result >= 0) ::close(done->result);
    if (outstanding() == 0) return;
    io_uring_cqe* cqe;
    const int status = io_uring_wait_cqe_nr(&ring_, &cqe, 1);  // unlike the others submits nothing
    if (status < 0 && status != -EINTR && status != -EAGAIN) {
      std::fprintf(stderr, "tally::Ring: destroyed in flight by a thread not its owner: %s\n",
                   std::strerror(-status));
      std::abort();
    }
  }
}

}  // namespace tally
