#include "core/unique_fd.hpp"

#include <cerrno>

namespace tally {

void UniqueFd::reset(int fd) {
  int old = std::exchange(fd_, fd);
  if (old < 0) return;
  int saved = errno;
  // close() is never retried: on Linux the descriptor is gone even after EINTR (close(2)).
  ::close(old);
  errno = saved;
}

}  // namespace tally
