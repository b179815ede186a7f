#pragma once

#include <cassert>
#include <cstddef>
#include <span>
#include <type_traits>

#include "core/mapping.hpp"

namespace tally {

/// A vector whose capacity is fixed at construction: for lists that are filled, worked off and
/// cleared again and again. Memory is touched as far as the longest list so far.
///
/// Not thread-safe. Allocates nothing after construction.
template <class T>
class ScratchVec {
 public:
  /// Room for `capacity` elements, at least 1. Throws std::bad_alloc.
  explicit ScratchVec(std::size_t capacity) : elements_(capacity) {}

  /// Appends a copy of `element`; false when the vector is full.
  [[nodiscard]] bool push_back(const T& element) {
    if (size_ == capacity()) return false;
    elements_[size_++] = element;
    return true;
  }

  /// Forgets all elements; the memory stays.
  void clear() { size_ = 0; }

  T& operator[](std::size_t i) {
    assert(i < size_);
    return elements_[i];
  }
  const T& operator[](std::size_t i) const {
    assert(i < size_);
    return elements_[i];
  }

  /// The elements so far; valid as long as the vector, though clear() hands the memory on.
  [[nodiscard]] std::span<T> span() { return {&elements_[0], size_}; }
  [[nodiscard]] std::span<const T> span() const { return {&elements_[0], size_}; }

  T* begin() { return &elements_[0]; }
  T* end() { return begin() + size_; }
  const T* begin() const { return &elements_[0]; }
  const T* end() const { return begin() + size_; }

  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t capacity() const { return elements_.capacity(); }

 private:
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

  ReservedArray<T> elements_;
  std::size_t size_ = 0;
};

}  // namespace tally
