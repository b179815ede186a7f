#pragma once

#include <atomic>
#include <cassert>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <type_traits>

#include "core/mapping.hpp"
#include "core/result.hpp"
#include "core/thread_safety.hpp"
#include "core/units.hpp"

namespace tally {

/// A fixed number of T in one reserved mapping, handed out and taken back in O(1) by index.
///
/// Reserving costs address space only; memory is touched in the order in which slots are first
/// handed out. Released slots are used again, last in first out, before fresh ones.
///
/// Thread-safe, and allocates nothing after construction. acquire() takes a lock only when there
/// are released slots to use again. What the slots contain is the callers' to synchronise.
template <class T, class Tag>
class NodePool {
 public:
  using Index = PoolIndex<Tag>;

  /// Room for `capacity` objects, at the indices 1 … capacity. Throws std::invalid_argument for a
  /// capacity of 0, std::bad_alloc when the address space is not to be had.
  explicit NodePool(uint32_t capacity)
      : capacity_(capacity),
        slots_(std::size_t{capacity} + 1),
        live_bits_(std::size_t{capacity} / bits_per_word + 1) {
    if (capacity == 0) throw std::invalid_argument("a node pool needs a capacity above 0");
  }

  /// A slot that nobody holds, with a value-initialised T in it. ENOSPC when all are held, or
  /// would be if every acquire() under way had its slot.
  Result<Index> acquire() {
    uint32_t slot = 0;
    if (free_count_.load(std::memory_order_relaxed) != 0) slot = pop_free();
    if (slot == 0) slot = take_fresh();
    if (slot == 0) return failure(ENOSPC);
    ::new (static_cast<void*>(&slots_[slot])) T();
    live_word(slot).fetch_or(live_bit(slot), std::memory_order_relaxed);
    return Index{slot};
  }

  /// Takes back what acquire() handed out. EINVAL, with nothing changed, for any other index: null,
  /// out of range, never handed out, or released and not acquired again since.
  Status release(Index index) {
    return release(index, [](T&) {});
  }

  /// As release(), and calls `dispose(T&)` in between: when the index has proved good, and before
  /// another acquire() can return the slot.
  template <class Dispose>
  Status release(Index index, Dispose dispose) {
    const uint32_t slot = index.value;
    if (slot > capacity_) return failure(EINVAL);
    // Of several releases of one index exactly one sees the bit set; for null it never is.
    const uint64_t bit = live_bit(slot);
    if ((live_word(slot).fetch_and(~bit, std::memory_order_relaxed) & bit) == 0)
      return failure(EINVAL);
    dispose(slots_[slot]);
    push_free(slot);
    return {};
  }

  T& operator[](Index index) {
    assert(index.value != 0 && index.value <= capacity_);
    return slots_[index.value];
  }
  const T& operator[](Index index) const {
    assert(index.value != 0 && index.value <= capacity_);
    return slots_[index.value];
  }

  /// Whether somebody holds the slot; for callers that let nobody acquire or release it meanwhile.
  [[nodiscard]] bool is_held(Index index) const {
    const auto& word = live_bits_[index.value / bits_per_word];
    return (word.load(std::memory_order_relaxed) & live_bit(index.value)) != 0;
  }

  /// Slots that are held; approximate while others acquire and release.
  [[nodiscard]] uint32_t size() const {
    // In this order: handed_out_ only grows, so that it is at least as large as any earlier
    // free_count_.
    const uint32_t free = free_count_.load(std::memory_order_acquire);
    return handed_out_.load(std::memory_order_relaxed) - free;
  }

  [[nodiscard]] uint32_t capacity() const { return capacity_; }

  /// Slots that were ever handed out, which are 1 … high_water(): how much memory was touched.
  [[nodiscard]] uint32_t high_water() const { return handed_out_.load(std::memory_order_relaxed); }

 private:
  static_assert(std::is_trivially_destructible_v<T>);
  static_assert(sizeof(T) >= sizeof(uint32_t), "a free slot holds the index of the next one");

  static constexpr uint32_t bits_per_word = 64;

  /// The next never used slot, or 0. By compare-exchange, because fetch_add would count on beyond
  /// the capacity with every attempt.
  uint32_t take_fresh() {
    uint32_t taken = handed_out_.load(std::memory_order_relaxed);
    do {
      if (taken == capacity_) return 0;
    } while (!handed_out_.compare_exchange_weak(taken, taken + 1, std::memory_order_relaxed));
    return taken + 1;
  }

  uint32_t pop_free() TALLY_EXCLUDES(free_mutex_) {
    MutexLock lock(free_mutex_);
    const uint32_t slot = free_head_;
    if (slot == 0) return 0;
    std::memcpy(&free_head_, static_cast<const void*>(&slots_[slot]), sizeof free_head_);
    free_count_.fetch_sub(1, std::memory_order_relaxed);
    return slot;
  }

  void push_free(uint32_t slot) TALLY_EXCLUDES(free_mutex_) {
    MutexLock lock(free_mutex_);
    std::memcpy(static_cast<void*>(&slots_[slot]), &free_head_, sizeof free_head_);
    free_head_ = slot;
    free_count_.fetch_add(1, std::memory_order_release);
  }

  std::atomic<uint64_t>& live_word(uint32_t slot) { return live_bits_[slot / bits_per_word]; }
  static uint64_t live_bit(uint32_t slot) { return uint64_t{1} << slot % bits_per_word; }

  const uint32_t capacity_;
  ReservedArray<T> slots_;  // slot 0 is never used: its index is null
  ReservedArray<std::atomic<uint64_t>> live_bits_;
  std::atomic<uint32_t> handed_out_ = 0;

  Mutex free_mutex_;
  uint32_t free_head_ TALLY_GUARDED_BY(free_mutex_) = 0;
  std::atomic<uint32_t> free_count_ = 0;  // changed with free_mutex_ held, read without
};

}  // namespace tally
