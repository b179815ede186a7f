#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "core/result.hpp"
#include "tests/mount/mount.hpp"
#include "tests/naive_count.hpp"

namespace tally::test {

/// An extended attribute of `path` (symbolic links not followed), as the bytes it holds.
Result<std::string> read_xattr(const std::string& path, const std::string& name);

/// The counter user.tally.`name` of a directory as a number. Fails the test (REQUIRE) when it
/// cannot be read or is not a plain decimal number.
int64_t counter(const std::string& directory, const std::string& name);

/// user.tally.rctime in nanoseconds.
TimeNs rctime_ns(const std::string& directory);

enum class Compare {
  exact_parts,  ///< what may never lag: all but disk blocks
  everything,   ///< disk blocks too, which move without a request when ext4 writes data out
};

/// Where the counters that a mount shows differ from the naive count of its lower directory, a
/// line each: empty when every counter of every directory is right.
std::vector<std::string> wrong_counters(const Mount& mount, Compare what);

/// The same of one directory, by its path below the root, and of all below it. Its files must have
/// no names outside of it.
std::vector<std::string> wrong_counters(const Mount& mount, Compare what, const std::string& below);

/// Checks (CHECK) every counter of every directory: exact parts at once; disk blocks with
/// patience, since they may be settled only half a minute after a file was closed. `synced` also
/// writes out the lower filesystem first.
void check_counters(const Mount& mount, bool synced = false);

/// Waits until no directory is suspect, for `limit` at most, and checks every counter.
void check_healed(const Mount& mount, std::chrono::seconds limit = std::chrono::seconds(45));

}  // namespace tally::test
