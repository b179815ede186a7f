#pragma once

#include <string>

namespace tally::test {

/// The case under way can't run on this machine: prints "TALLYFS-SKIP: <reason>" and counts as an
/// assertion that holds. Return from the case afterwards. A program that skipped and failed in
/// nothing ends with status `skip_status`, which ctest takes for a skipped test.
void skip(const std::string& reason);

[[nodiscard]] bool has_skipped();

constexpr int skip_status = 77;  // as automake and meson have it

}  // namespace tally::test
