#pragma once

#include <cstdint>

namespace tally {

/// How many descriptors this process may have open: its soft RLIMIT_NOFILE.
uint32_t descriptor_limit();

/// Raises the soft limit to the hard one where that is allowed. Returns the limit that holds
/// afterwards. For programs, at start: whoever they start inherits it, and select(2) can't deal
/// with descriptors beyond 1023.
uint32_t raise_descriptor_limit();

}  // namespace tally
