#pragma once

#include <cstdint>
#include <vector>

namespace tally::test {

/// A set of small numbers from which one can be picked at random.
class NumberSet {
 public:
  void add(uint32_t number) {
    if (number >= places_.size()) places_.resize(number + 1, absent);
    places_[number] = static_cast<uint32_t>(numbers_.size());
    numbers_.push_back(number);
  }

  /// `number` is in the set.
  void remove(uint32_t number) {
    const uint32_t place = places_[number];
    numbers_[place] = numbers_.back();
    places_[numbers_[place]] = place;
    places_[number] = absent;
    numbers_.pop_back();
  }

  [[nodiscard]] bool contains(uint32_t number) const {
    return number < places_.size() && places_[number] != absent;
  }
  [[nodiscard]] std::size_t size() const { return numbers_.size(); }
  [[nodiscard]] bool empty() const { return numbers_.empty(); }

  /// In no order that means anything.
  [[nodiscard]] const std::vector<uint32_t>& numbers() const { return numbers_; }

 private:
  static constexpr uint32_t absent = ~0U;

  std::vector<uint32_t> numbers_;
  std::vector<uint32_t> places_;
};

}  // namespace tally::test
