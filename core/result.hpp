#pragma once

#include <cerrno>
#include <cstring>
#include <expected>
#include <string>

namespace tally {

/// An errno value, captured where the system call was made. Never 0.
struct Errno {
  int value;

  friend bool operator==(Errno, Errno) = default;

  /// The C library's text for it ("No such file or directory"). Allocates: not for hot paths.
  [[nodiscard]] std::string message() const { return std::strerror(value); }
};

/// What every fallible operation returns once start-up is over: a value or an errno.
template <class T>
using Result = std::expected<T, Errno>;

using Status = Result<void>;

/// The calling thread's errno as a failed Result.
[[nodiscard]] inline std::unexpected<Errno> last_error() { return std::unexpected(Errno{errno}); }

/// A failed Result with a given errno value.
[[nodiscard]] inline std::unexpected<Errno> failure(int value) {
  return std::unexpected(Errno{value});
}

}  // namespace tally
