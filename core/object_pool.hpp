#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>

#include "core/node_pool.hpp"

namespace tally {

/// A fixed number of T with constructors and destructors, held by plain pointers: for objects whose
/// pointer travels through an interface that can't own (a FUSE file handle). Whatever is left at
/// the end is destroyed with the pool.
///
/// Thread-safe, and allocates nothing after construction (what T allocates is T's affair).
template <class T>
class ObjectPool {
 public:
  /// Room for `capacity` objects. Throws std::invalid_argument for 0, std::bad_alloc.
  explicit ObjectPool(uint32_t capacity) : slots_(capacity) {}
  ObjectPool(const ObjectPool&) = delete;
  ObjectPool& operator=(const ObjectPool&) = delete;
  ~ObjectPool() {
    for (uint32_t i = 1; i <= slots_.high_water(); ++i) {
      // EINVAL says that this one was destroyed before.
      std::ignore = destroy_slot({i});
    }
  }

  /// A new T(arguments…), to be given back to destroy(); nullptr when the pool is full. What the
  /// constructor throws passes through, and the slot stays free.
  template <class... Arguments>
  [[nodiscard]] T* make(Arguments&&... arguments) {
    const auto index = slots_.acquire();
    if (!index) return nullptr;
    try {
      return std::construct_at(object_in(slots_[*index]), std::forward<Arguments>(arguments)...);
    } catch (...) {
      static_cast<void>(slots_.release(*index));
      throw;
    }
  }

  /// Destroys what make() returned. EINVAL, with nothing done, for any other pointer: null, into
  /// other memory, into the middle of an object, or to an object destroyed already.
  Status destroy(T* object) {
    const auto offset_bytes =
        reinterpret_cast<uintptr_t>(object) - reinterpret_cast<uintptr_t>(&slots_[SlotIndex{1}]);
    if (offset_bytes % sizeof(Slot) != 0 || offset_bytes / sizeof(Slot) >= slots_.capacity())
      return failure(EINVAL);
    return destroy_slot({static_cast<uint32_t>(offset_bytes / sizeof(Slot)) + 1});
  }

  /// Objects that are alive; approximate while others make and destroy.
  [[nodiscard]] uint32_t size() const { return slots_.size(); }
  [[nodiscard]] uint32_t capacity() const { return slots_.capacity(); }

 private:
  struct Slot {
    Slot() {}  // leaves the bytes alone: T's constructor follows
    alignas(T) std::byte bytes[std::max(sizeof(T), sizeof(uint32_t))];
  };
  using SlotIndex = PoolIndex<Slot>;

  static T* object_in(Slot& slot) { return reinterpret_cast<T*>(slot.bytes); }

  Status destroy_slot(SlotIndex index) {
    return slots_.release(index,
                          [](Slot& slot) { std::destroy_at(std::launder(object_in(slot))); });
  }

  NodePool<Slot, Slot> slots_;
};

}  // namespace tally
