#pragma once

#include "core/result.hpp"
#include "core/unique_fd.hpp"

namespace tally {

/// Opens a directory once more, in a mount of its own that has nothing mounted below: there what
/// other mounts cover is seen, and nothing that is mounted later appears. The mount is in nobody's
/// namespace and lives as long as a descriptor that was opened through it.
///
/// `fd`: an open directory, O_PATH will do. Needs CAP_SYS_ADMIN, else EPERM; ENOSYS before
/// Linux 5.2. Subvolumes of btrfs are no mounts and stay.
Result<UniqueFd> open_without_mounts(int fd);

}  // namespace tally
