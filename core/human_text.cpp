#include "core/human_text.hpp"

#include <array>
#include <cstdio>

namespace tally {

std::string bytes_text(uint64_t bytes) {
  static constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  // The least amount that is printed as 1024.0 of a unit belongs to the next one.
  constexpr double next_unit = 1023.95;
  double amount = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (amount >= (unit == 0 ? 1024.0 : next_unit)) {
    amount /= 1024;
    ++unit;
  }
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", amount, units[unit]);
  return text.data();
}

std::string count_text(uint64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t end = text.size(); end > 3; end -= 3)
    text.insert(end - 3, 1, ',');
  return text;
}

}  // namespace tally
