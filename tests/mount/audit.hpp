#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "tests/mount/mount.hpp"

namespace tally::test {

inline constexpr const char* audit_name = "user.tally.audit";

/// Has the mount audited, waits for the end of it, and returns the numbers that it reports by name.
std::map<std::string, int64_t> audit(const Mount& mount);

}  // namespace tally::test
