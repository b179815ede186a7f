#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace tally {

/// Why an AlignedBufferPool can't be built.
enum class BufferPoolError {
  alignment_not_power_of_two,
  size_not_multiple_of_alignment,  ///< or zero
  no_capacity,
  too_large,  ///< more address space than the process can get, or more than 2^32 - 2 buffers
};

/// One line for the user, without the values.
[[nodiscard]] const char* message(BufferPoolError error);

/// A fixed number of equal buffers for direct I/O, each aligned as asked. All address space is
/// taken at construction; a buffer costs memory once somebody has written to it. The buffer that
/// came back last is handed out first: it is the one still in the CPU's cache, and buffers beyond
/// the largest number in use at once never cost memory.
///
/// Threads: any may lease and return. A lease takes no lock while a buffer is free.
/// Lifetime: leases may outlive the pool; the last one to go unmaps the buffers.
class AlignedBufferPool {
 public:
  class Lease;

  /// `alignment_bytes` must be a power of two, `buffer_size_bytes` a non-zero multiple of it and
  /// `capacity` not zero; each violation is an error of its own. The only place that allocates.
  static std::expected<AlignedBufferPool, BufferPoolError> create(std::size_t alignment_bytes,
                                                                  std::size_t buffer_size_bytes,
                                                                  std::size_t capacity);

  /// A buffer, as soon as one is free: sleeps while all are leased. Threads that wait are served in
  /// no particular order. The pool must not be destroyed while a thread is in here.
  [[nodiscard]] Lease lease();

  /// A buffer, or nothing when all are leased. Never blocks.
  [[nodiscard]] std::optional<Lease> try_lease();

  [[nodiscard]] std::size_t alignment_bytes() const;
  [[nodiscard]] std::size_t buffer_size_bytes() const;
  [[nodiscard]] std::size_t capacity() const;

  /// Buffers out at this moment, and the most that ever were. Never above capacity().
  [[nodiscard]] std::size_t leased_count() const;
  [[nodiscard]] std::size_t leased_count_max() const;

 private:
  struct State;
  explicit AlignedBufferPool(std::shared_ptr<State> state) : state_(std::move(state)) {}

  std::shared_ptr<State> state_;
};

/// The right to use one buffer, until it is destroyed or reset. Move-only. What the buffer contains
/// is whatever the previous holder left there.
class AlignedBufferPool::Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept
      : state_(std::move(other.state_)), bytes_(std::exchange(other.bytes_, {})) {}
  Lease& operator=(Lease&& other) noexcept {
    if (this != &other) {
      reset();
      state_ = std::move(other.state_);
      bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
  }
  ~Lease() { reset(); }

  /// The whole buffer; empty when nothing is held.
  [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }
  explicit operator bool() const { return state_ != nullptr; }

  /// Returns the buffer now. Does nothing when none is held.
  void reset();

 private:
  friend class AlignedBufferPool;
  Lease(std::shared_ptr<State> state, uint32_t number);

  std::shared_ptr<State> state_;
  std::span<std::byte> bytes_;
};

}  // namespace tally
