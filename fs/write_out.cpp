#include "fs/write_out.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "fs/mount_table.hpp"

namespace tally::fs {

void write_out(const Place& place) {
  static_cast<void>(::syncfs(place.source.get()));
  // From the source on, since a mount over it hides its path.
  const std::size_t prefix = place.source_path == "/" ? 1 : place.source_path.size() + 1;
  for (const MountEntry& mount : mounts_below(place.source_path)) {
    // To these syncfs(2) means nothing, and one of them may be what we serve.
    if (mount.type.starts_with("fuse")) continue;
    const UniqueFd fd(::openat(place.source.get(), mount.mountpoint.c_str() + prefix,
                               O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd) static_cast<void>(::syncfs(fd.get()));
  }
}

}  // namespace tally::fs
