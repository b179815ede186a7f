#pragma once

#include <cassert>
#include <cstddef>

namespace tally {

/// The member through which a T hangs in a Queue. An element is in at most one queue per link.
template <class T>
struct QueueLink {
  T* previous = nullptr;
  T* next = nullptr;
};

/// An intrusive doubly linked list, for LRU lists and work lists: every operation is O(1), and
/// there is no capacity because the elements bring the links along.
///
///     struct Inode { QueueLink<Inode> lru_link; };
///     Queue<Inode, &Inode::lru_link> lru;
///
/// The queue owns nothing: an element must outlive its stay and must not move during it.
/// Not thread-safe. Never allocates.
template <class T, QueueLink<T> T::* link>
class Queue {
 public:
  Queue() = default;
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  /// Appends `element`, which must not be in a queue through this link.
  void push_back(T& element) { insert_between(tail_, element, nullptr); }

  /// As push_back(), before the first element.
  void push_front(T& element) { insert_between(nullptr, element, head_); }

  /// Removes and returns the last element, nullptr when there is none.
  T* pop_back() { return pop(tail_); }

  /// Removes and returns the first element, nullptr when there is none.
  T* pop_front() { return pop(head_); }

  /// Takes out `element`, which must be in this queue.
  void remove(T& element) {
    assert(is_linked(element));
    auto& [previous, next] = element.*link;
    (previous == nullptr ? head_ : (previous->*link).next) = next;
    (next == nullptr ? tail_ : (next->*link).previous) = previous;
    previous = next = nullptr;
    --size_;
  }

  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  [[nodiscard]] std::size_t size() const { return size_; }

 private:
  /// Whether the element is in this queue, or in another one that has more elements.
  bool is_linked(const T& element) const {
    return (element.*link).previous != nullptr || (element.*link).next != nullptr ||
           head_ == &element;
  }

  void insert_between(T* previous, T& element, T* next) {
    assert(!is_linked(element));
    element.*link = {previous, next};
    (previous == nullptr ? head_ : (previous->*link).next) = &element;
    (next == nullptr ? tail_ : (next->*link).previous) = &element;
    ++size_;
  }

  T* pop(T* element) {
    if (element != nullptr) remove(*element);
    return element;
  }

  T* head_ = nullptr;
  T* tail_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace tally
