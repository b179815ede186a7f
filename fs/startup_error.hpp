#pragma once

#include <stdexcept>

namespace tally::fs {

/// Why the mount can't come up: what() is one line for the user, which says what is wrong and what
/// to do about it.
class StartupError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace tally::fs
