#include "core/open_without_mounts.hpp"

#include <fcntl.h>
#include <sys/mount.h>

namespace tally {

Result<UniqueFd> open_without_mounts(int fd) {
  constexpr unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
  const UniqueFd clone(::open_tree(fd, "", flags));  // not AT_RECURSIVE: without the mounts below
  if (!clone) return last_error();
  // When the clone's own descriptor is closed the mount leaves the group in which mounts propagate
  // (fs/namespace.c, dissolve_on_fput).
  UniqueFd directory(::openat(clone.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return last_error();
  return directory;
}

}  // namespace tally
