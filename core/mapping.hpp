#pragma once

#include <cstddef>
#include <utility>

#include "core/result.hpp"

namespace tally {

/// Sole owner of an anonymous, private, zero-filled mapping. Reserving costs address space only:
/// a page takes memory when it is first written (MAP_NORESERVE). Move-only.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping();

  /// Reserves at least `size_bytes` (rounded up to a page), page-aligned.
  static Result<Mapping> reserve(std::size_t size_bytes);

  /// As reserve(), for start-up: throws std::bad_alloc with errno set.
  static Mapping reserve_or_throw(std::size_t size_bytes);

  /// Gives the memory back and keeps the address space; the contents become zero.
  void discard();

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t size_bytes() const { return size_; }

 private:
  Mapping(std::byte* data, std::size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A fixed-capacity array of T over a reserved mapping; elements start out as all zero bytes.
/// T must be trivially destructible and valid when zero-filled.
template <class T>
class ReservedArray {
 public:
  ReservedArray() = default;
  explicit ReservedArray(std::size_t capacity)
      : mapping_(Mapping::reserve_or_throw(capacity * sizeof(T))), capacity_(capacity) {}

  T& operator[](std::size_t i) { return data()[i]; }
  const T& operator[](std::size_t i) const { return data()[i]; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  void discard() { mapping_.discard(); }

 private:
  [[nodiscard]] T* data() const { return reinterpret_cast<T*>(mapping_.data()); }

  Mapping mapping_;
  std::size_t capacity_ = 0;
};

}  // namespace tally
