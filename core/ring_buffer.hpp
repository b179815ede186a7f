#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <type_traits>

#include "core/mapping.hpp"

namespace tally {

/// A bounded first-in-first-out queue that any number of threads push to and pop from, without
/// blocking. What one thread pushes comes out in the order in which it was pushed.
///
/// Dmitry Vyukov's bounded MPMC queue (1024cores.net, "Bounded MPMC queue"). Each cell carries a
/// sequence number that says whose turn it is: equal to the position of the next push to the cell
/// when it is empty, one more when it holds the value of that push.
///
/// Thread-safe. Allocates nothing after construction.
template <class T>
class RingBuffer {
 public:
  /// `capacity` is a power of two and at least 2 (with a single cell, "full" and "empty for the
  /// next lap" would be the same sequence number). Throws std::invalid_argument, std::bad_alloc.
  explicit RingBuffer(uint32_t capacity) : mask_(validated(capacity) - 1), cells_(capacity) {
    for (std::size_t i = 0; i < capacity; ++i)
      cells_[i].sequence.store(i, std::memory_order_relaxed);
  }

  /// Appends `value`. False when the buffer is full, or when the pop of the value that was in the
  /// next cell has not finished yet.
  [[nodiscard]] bool try_push(const T& value) {
    const auto position = claim(push_position_, 0);
    if (!position) return false;
    Cell& cell = cells_[*position & mask_];
    cell.value = value;
    cell.sequence.store(*position + 1, std::memory_order_release);
    return true;
  }

  /// Takes the oldest value. False, with `value` untouched, when the buffer is empty, or when the
  /// push of the oldest value has not finished yet.
  [[nodiscard]] bool try_pop(T& value) {
    const auto position = claim(pop_position_, 1);
    if (!position) return false;
    Cell& cell = cells_[*position & mask_];
    value = cell.value;
    cell.sequence.store(*position + capacity(), std::memory_order_release);
    return true;
  }

  [[nodiscard]] std::size_t capacity() const { return mask_ + 1; }

 private:
  static_assert(std::is_trivially_copyable_v<T>);

  struct Cell {
    std::atomic<std::size_t> sequence;
    T value;
  };

  static uint32_t validated(uint32_t capacity) {
    if (capacity < 2 || !std::has_single_bit(capacity))
      throw std::invalid_argument("the capacity of a ring buffer must be a power of two from 2");
    return capacity;
  }

  /// Moves `next` past its cell, if that cell's sequence number is `lead` ahead of the position,
  /// and returns the position. Nothing when the cell still belongs to the lap before.
  std::optional<std::size_t> claim(std::atomic<std::size_t>& next, std::size_t lead) {
    std::size_t position = next.load(std::memory_order_relaxed);
    for (;;) {
      const std::size_t sequence =
          cells_[position & mask_].sequence.load(std::memory_order_acquire);
      const auto difference = static_cast<std::ptrdiff_t>(sequence - (position + lead));
      if (difference < 0) return std::nullopt;
      if (difference > 0) {
        position = next.load(std::memory_order_relaxed);  // another thread has claimed this cell
      } else if (next.compare_exchange_weak(position, position + 1, std::memory_order_relaxed)) {
        return position;
      }
    }
  }

  static constexpr std::size_t cache_line_bytes = 64;

  const std::size_t mask_;
  ReservedArray<Cell> cells_;
  // Producers and consumers each write their own cache line.
  alignas(cache_line_bytes) std::atomic<std::size_t> push_position_ = 0;
  alignas(cache_line_bytes) std::atomic<std::size_t> pop_position_ = 0;
};

}  // namespace tally
