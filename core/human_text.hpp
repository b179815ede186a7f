#pragma once

#include <cstdint>
#include <string>

namespace tally {

/// Bytes for people, in binary units with one decimal: "0 B", "999 B", "12.3 GiB".
std::string bytes_text(uint64_t bytes);

/// A count for people, with a comma between thousands: "1,234,567".
std::string count_text(uint64_t count);

}  // namespace tally
