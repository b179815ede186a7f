#include "core/aligned_buffer_pool.hpp"

#include <atomic>
#include <bit>
#include <limits>

#include "core/mapping.hpp"
#include "core/thread_safety.hpp"

// The free buffers form a Treiber stack (R. K. Treiber, "Systems Programming: Coping with
// Parallelism", IBM RJ 5118, 1986) of indices, so that the one returned last is leased first.
//
//   head_   64 bits: tag (upper half), number of the top buffer (lower half, 0 = empty)
//   next_   one atomic per buffer: the number of the one below it, valid while it is in the stack
//
// ABA. A thread T that pops reads head_ = (t, A), then next_[A] = B, and swaps head_ to (t, B). If
// in between others pop A and B and push A again, B is in use and must not become the top. Every
// push increments the tag, so T's swap fails and T starts over; what T read from next_[A] is then
// garbage, but an atomic that exists as long as the pool, so reading it is no race. The tag wraps
// after 2^32 pushes: T would have to sleep through exactly a multiple of that between two
// instructions.
//
// Contents. Whoever leases a buffer sees the writes of whoever returned it: push and pop are
// read-modify-writes of head_, so a pop continues the release sequence of the push it takes from,
// whatever happened on top of it in the meantime.
//
// Sleep. A thread that finds the stack empty takes the mutex, announces itself in waiters_, looks
// again and only then sleeps (which releases the mutex). A thread that returns a buffer pushes it
// and then reads waiters_. These four are sequentially consistent, so of
//
//   waiter:    waiters_ += 1;  look at head_          returner:  push to head_;  read waiters_
//
// at least one sees the other. If the waiter sees the buffer, it takes it. If the returner sees the
// waiter, it takes the mutex before it notifies: the waiter holds the mutex from its announcement
// until it sleeps, so the notification can't fall between its look and its sleep. A third thread
// may snatch the buffer without the mutex before the waiter wakes; the waiter then sleeps again,
// still announced, and that thread's own return wakes it. Every return notifies while anybody is
// announced, and a notification goes to one who still sleeps: two returns wake two sleepers.

namespace tally {

const char* message(BufferPoolError error) {
  switch (error) {
    case BufferPoolError::alignment_not_power_of_two:
      return "the alignment of buffers must be a power of two";
    case BufferPoolError::size_not_multiple_of_alignment:
      return "the size of a buffer must be a non-zero multiple of its alignment";
    case BufferPoolError::no_capacity:
      return "a buffer pool needs at least one buffer";
    case BufferPoolError::too_large:
      return "the buffer pool needs more address space than there is";
  }
  return "unknown buffer pool error";
}

struct AlignedBufferPool::State {
  State(std::size_t alignment, std::size_t buffer_size, uint32_t buffer_count)
      : alignment_bytes(alignment),
        buffer_size_bytes(buffer_size),
        capacity(buffer_count),
        next_(capacity + std::size_t{1}),
        // A mapping is aligned to a page; the slack lets the first buffer move up to more.
        memory_(Mapping::reserve_or_throw(buffer_size_bytes * capacity + alignment_bytes)) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    const std::size_t misaligned_bytes = address & (alignment_bytes - 1);
    first_ = memory_.data() + (misaligned_bytes == 0 ? 0 : alignment_bytes - misaligned_bytes);
    for (uint32_t number = 1; number < capacity; ++number)
      next_[number].store(number + 1, std::memory_order_relaxed);
    head_.store(1);
  }

  // Takes the top buffer and returns its number, 0 when there is none.
  uint32_t pop() {
    uint64_t head = head_.load();
    while (true) {
      const auto number = static_cast<uint32_t>(head);
      if (number == 0) return 0;
      const uint32_t below = next_[number].load(std::memory_order_relaxed);
      if (head_.compare_exchange_weak(head, (head & tag_mask) | below)) break;
      // Somebody else was faster; `head` is what they left.
    }
    count_lease();
    return static_cast<uint32_t>(head);
  }

  void push(uint32_t number) {
    leased_count.fetch_sub(1, std::memory_order_relaxed);
    uint64_t head = head_.load();
    uint64_t with_buffer;
    do {
      next_[number].store(static_cast<uint32_t>(head), std::memory_order_relaxed);
      with_buffer = ((head & tag_mask) + one_tag) | number;
    } while (!head_.compare_exchange_weak(head, with_buffer));

    if (waiters_.load() == 0) return;
    MutexLock lock(mutex_);
    returned_.notify_one();
  }

  uint32_t pop_or_wait() {
    if (const uint32_t number = pop()) return number;
    MutexLock lock(mutex_);
    waiters_.fetch_add(1);
    uint32_t number;
    while ((number = pop()) == 0)
      returned_.wait(mutex_);
    waiters_.fetch_sub(1);
    return number;
  }

  std::span<std::byte> buffer(uint32_t number) const {
    return {first_ + (number - 1) * buffer_size_bytes, buffer_size_bytes};
  }

  uint32_t number_of(std::span<std::byte> buffer) const {
    return static_cast<uint32_t>(static_cast<std::size_t>(buffer.data() - first_) /
                                 buffer_size_bytes) +
           1;
  }

  const std::size_t alignment_bytes;
  const std::size_t buffer_size_bytes;
  const uint32_t capacity;
  std::atomic<uint32_t> leased_count = 0;
  std::atomic<uint32_t> leased_count_max = 0;

 private:
  static constexpr uint64_t one_tag = uint64_t{1} << 32;
  static constexpr uint64_t tag_mask = ~(one_tag - 1);

  void count_lease() {
    const uint32_t count = leased_count.fetch_add(1, std::memory_order_relaxed) + 1;
    uint32_t max = leased_count_max.load(std::memory_order_relaxed);
    while (max < count &&
           !leased_count_max.compare_exchange_weak(max, count, std::memory_order_relaxed)) {
    }
  }

  std::atomic<uint64_t> head_ = 0;
  ReservedArray<std::atomic<uint32_t>> next_;  // by number; the first is unused
  Mapping memory_;
  std::byte* first_ = nullptr;

  std::atomic<uint32_t> waiters_ = 0;
  Mutex mutex_;
  CondVar returned_;
};

std::expected<AlignedBufferPool, BufferPoolError> AlignedBufferPool::create(
    std::size_t alignment_bytes, std::size_t buffer_size_bytes, std::size_t capacity) {
  if (!std::has_single_bit(alignment_bytes))
    return std::unexpected(BufferPoolError::alignment_not_power_of_two);
  if (buffer_size_bytes == 0 || buffer_size_bytes % alignment_bytes != 0)
    return std::unexpected(BufferPoolError::size_not_multiple_of_alignment);
  if (capacity == 0) return std::unexpected(BufferPoolError::no_capacity);
  constexpr std::size_t address_space_bytes = std::numeric_limits<std::ptrdiff_t>::max();
  if (capacity >= std::numeric_limits<uint32_t>::max() || alignment_bytes > address_space_bytes ||
      buffer_size_bytes > (address_space_bytes - alignment_bytes) / capacity)
    return std::unexpected(BufferPoolError::too_large);
  try {
    return AlignedBufferPool(std::make_shared<State>(alignment_bytes, buffer_size_bytes,
                                                     static_cast<uint32_t>(capacity)));
  } catch (const std::bad_alloc&) {
    return std::unexpected(BufferPoolError::too_large);
  }
}

AlignedBufferPool::Lease AlignedBufferPool::lease() { return Lease(state_, state_->pop_or_wait()); }

std::optional<AlignedBufferPool::Lease> AlignedBufferPool::try_lease() {
  const uint32_t number = state_->pop();
  if (number == 0) return std::nullopt;
  return Lease(state_, number);
}

std::size_t AlignedBufferPool::alignment_bytes() const { return state_->alignment_bytes; }

std::size_t AlignedBufferPool::buffer_size_bytes() const { return state_->buffer_size_bytes; }

std::size_t AlignedBufferPool::capacity() const { return state_->capacity; }

std::size_t AlignedBufferPool::leased_count() const {
  return state_->leased_count.load(std::memory_order_relaxed);
}

std::size_t AlignedBufferPool::leased_count_max() const {
  return state_->leased_count_max.load(std::memory_order_relaxed);
}

AlignedBufferPool::Lease::Lease(std::shared_ptr<State> state, uint32_t number)
    : state_(std::move(state)), bytes_(state_->buffer(number)) {}

void AlignedBufferPool::Lease::reset() {
  if (state_ == nullptr) return;
  state_->push(state_->number_of(bytes_));
  bytes_ = {};
  state_.reset();
}

}  // namespace tally
