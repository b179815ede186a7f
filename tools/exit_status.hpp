#pragma once

namespace tally::tools {

/// What programs return, as du(1) and most others do.
inline constexpr int exit_ok = 0;
inline constexpr int exit_incomplete = 1;  ///< it failed, or something could not be counted
inline constexpr int exit_usage = 2;

}  // namespace tally::tools
