#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <xxhash.h>

#include "core/mapping.hpp"

namespace tally {

/// XXH3 (xxHash) of a key's bytes.
template <class K>
struct XxHash {
  static_assert(std::has_unique_object_representations_v<K>,
                "equal keys must have equal bytes: a key with padding needs a hash of its own");
  uint64_t operator()(const K& key) const { return XXH3_64bits(&key, sizeof key); }
};

/// What became of an insertion.
enum class Insertion : uint8_t { inserted, present, full };

/// A set of at most `capacity` trivially copyable keys.
///
/// Open addressing with linear probing, at most three quarters full. erase() shifts later keys of
/// the cluster back instead of leaving tombstones, so that no sequence of operations slows the set
/// down (Knuth, The Art of Computer Programming, vol. 3, 6.4, algorithm R).
///
/// Not thread-safe. Allocates nothing after construction.
template <class K, class Hash = XxHash<K>>
class FixedSet {
 public:
  /// Room for `capacity` keys. Throws std::bad_alloc.
  explicit FixedSet(std::size_t capacity)
      : capacity_(capacity), mask_(slots_for(capacity) - 1), slots_(slots_for(capacity)) {}

  /// Adds `key`. `present` if it was in the set, whether full or not; `full` if there is no room.
  [[nodiscard]] Insertion insert(const K& key) {
    Slot& slot = slots_[find(key)];
    if (slot.used) return Insertion::present;
    if (size_ == capacity_) return Insertion::full;
    slot = {.key = key, .used = true};
    ++size_;
    return Insertion::inserted;
  }

  [[nodiscard]] bool contains(const K& key) const { return slots_[find(key)].used; }

  /// Removes `key`; false if it was not in the set.
  bool erase(const K& key) {
    std::size_t hole = find(key);
    if (!slots_[hole].used) return false;
    for (std::size_t i = next(hole); slots_[i].used; i = next(i)) {
      // A key may move back to the hole unless that would put it before its home.
      if (distance(home(slots_[i].key), i) < distance(hole, i)) continue;
      slots_[hole] = slots_[i];
      hole = i;
    }
    slots_[hole].used = false;
    --size_;
    return true;
  }

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }

 private:
  static_assert(std::is_trivially_copyable_v<K>);

  struct Slot {
    K key;
    bool used;
  };

  /// A power of two, of which `capacity` keys fill at most three quarters.
  static std::size_t slots_for(std::size_t capacity) {
    return std::bit_ceil((4 * capacity + 2) / 3);
  }

  /// The slot that holds `key`, or the unused one where it belongs. There always is one.
  std::size_t find(const K& key) const {
    std::size_t i = home(key);
    while (slots_[i].used && !(slots_[i].key == key))
      i = next(i);
    return i;
  }

  std::size_t home(const K& key) const { return Hash{}(key)&mask_; }
  std::size_t next(std::size_t i) const { return (i + 1) & mask_; }
  /// Steps of next() from one slot to another.
  std::size_t distance(std::size_t from, std::size_t to) const { return (to - from) & mask_; }

  const std::size_t capacity_;
  const std::size_t mask_;
  ReservedArray<Slot> slots_;
  std::size_t size_ = 0;
};

}  // namespace tally
