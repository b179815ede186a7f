#include "tests/mount/uring_enabled.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>

#include <catch2/catch.hpp>

#include "core/ring.hpp"
#include "tests/mount/child_process.hpp"
#include "tests/mount/mount.hpp"
#include "tests/skip.hpp"

namespace tally::test {

static constexpr const char* parameter_path = "/sys/module/fuse/parameters/enable_uring";

UringEnabled::UringEnabled() : parameter_(::open(parameter_path, O_RDWR | O_CLOEXEC)) {
  if (!parameter_ || ::flock(parameter_.get(), LOCK_EX) != 0) return;
  if (::pread(parameter_.get(), &former_, 1, 0) == 1) is_on_ = set('Y');
}

UringEnabled::~UringEnabled() {
  if (is_on_) set(former_);
}

bool UringEnabled::set(char value) const { return ::pwrite(parameter_.get(), &value, 1, 0) == 1; }

bool can_use(const UringEnabled& enabled) {
  if (!enabled.is_on()) {
    WARN(parameter_path << " is missing or can't be set");
    SUCCEED();
    return false;
  }
  std::string reason;
  if (const auto ring = Ring::create(8); !ring)
    reason = "io_uring: " + ring.error().message();
  else if (const Finished limits = run(tallyfs_command({"-ouring=on", "--show-limits", "/"}));
           limits.status != 0)
    reason = limits.output;
  if (!reason.empty()) skip(reason);
  return reason.empty();
}

}  // namespace tally::test
