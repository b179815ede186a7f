#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace tally {

/// A sum modulo 2^64, as atomic counters have it: sparse files add up to more than fits, and less
/// again when one of them goes.
constexpr int64_t wrapping_sum(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

/// A signed amount of one unit. Amounts of different units don't convert into each other.
template <class Unit>
struct Quantity {
  int64_t count = 0;

  friend auto operator<=>(Quantity, Quantity) = default;
  friend Quantity operator+(Quantity a, Quantity b) { return {wrapping_sum(a.count, b.count)}; }
  friend Quantity operator-(Quantity a, Quantity b) { return a + -b; }
  friend Quantity operator-(Quantity a) {
    return {static_cast<int64_t>(-static_cast<uint64_t>(a.count))};
  }
  Quantity& operator+=(Quantity b) { return *this = *this + b; }
  Quantity& operator-=(Quantity b) { return *this = *this - b; }
};

/// Bytes of st_size.
using Bytes = Quantity<struct BytesUnit>;

/// 512-byte units of st_blocks.
using Blocks = Quantity<struct BlocksUnit>;

/// The size of one st_blocks unit (stat(2)).
inline constexpr int64_t block_size_bytes = 512;

/// The index of an object in a pool. 0 is the null index and belongs to no object.
template <class Tag>
struct PoolIndex {
  uint32_t value = 0;

  friend auto operator<=>(PoolIndex, PoolIndex) = default;
  explicit operator bool() const { return value != 0; }
};

}  // namespace tally
