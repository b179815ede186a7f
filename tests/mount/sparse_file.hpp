#pragma once

#include <string>

namespace tally::test {

/// Makes a file of `blocks` blocks of 4 KiB, each followed by a hole as large, and leaves it dirty.
/// With more than four it takes blocks for a tree of extents on ext4, which are allocated with the
/// data: when it is written out. Throws std::system_error.
void write_every_second_block(const std::string& path, int blocks);

}  // namespace tally::test
