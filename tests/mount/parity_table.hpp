#pragma once

#include <string>

namespace tally::test {

/// PARITY.md: what the parity suite compares, counted from its own lists.
std::string parity_table();

/// How many combinations the parity suite compares, as people write it: "105,896".
std::string parity_count();

}  // namespace tally::test
