#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace tally {

/// A signed amount of one unit. Amounts of different units don't convert into each other.
template <class Unit>
struct Quantity {
  int64_t count = 0;

  friend auto operator<=>(Quantity, Quantity) = default;
  friend Quantity operator+(Quantity a, Quantity b) { return {a.count + b.count}; }
  friend Quantity operator-(Quantity a, Quantity b) { return {a.count - b.count}; }
  friend Quantity operator-(Quantity a) { return {-a.count}; }
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
