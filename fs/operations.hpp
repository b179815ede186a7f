#pragma once

#include <fuse_lowlevel.h>

namespace tally::fs {

/// The requests of FUSE as calls on a Filesystem: the table for fuse_session_new(), whose userdata
/// is the Filesystem. `init` and `destroy` are null and left to the session. What is not in the
/// table the kernel does by itself (locks, poll) or need not ask (access, by default_permissions).
const fuse_lowlevel_ops& operations();

}  // namespace tally::fs
