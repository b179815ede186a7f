#pragma once

#include <string>

#ifdef TALLYFS_HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

namespace tally::tools {

/// Tells systemd about our state ("READY=1", "STATUS=…", "STOPPING=1"; sd_notify(3)). Does nothing
/// when we are not its service, or built without libsystemd.
inline void tell_service_manager([[maybe_unused]] const std::string& state) {
#ifdef TALLYFS_HAVE_SYSTEMD
  sd_notify(0, state.c_str());
#endif
}

}  // namespace tally::tools
