#include "core/scan_errors.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace tally {

const char* description_of(ScanErrorKind kind) {
  switch (kind) {
    case ScanErrorKind::unreadable:
      return "could not be read";
    case ScanErrorKind::vanished:
      return "vanished during the scan";
    case ScanErrorKind::changed:
      return "was replaced or moved during the scan";
    case ScanErrorKind::duplicate:
      return "is a directory that was already counted under another path";
    case ScanErrorKind::no_room:
      return "does not fit into the configured capacities";
    case ScanErrorKind::other_filesystem:
      return "lies on another filesystem and is left out";
  }
  return "";
}

void ScanErrors::keep(ScanErrorKind kind, Errno error, std::string_view path) {
  MutexLock lock(mutex_);
  std::size_t& kept = kept_[index_of(kind)];
  if (kept == reports_max) return;
  Slot& slot = slots_[index_of(kind) * reports_max + kept++];
  const std::size_t size_bytes = std::min(path.size(), sizeof slot.path);
  std::memcpy(slot.path, path.data() + (path.size() - size_bytes), size_bytes);
  slot.path_size_bytes = static_cast<uint32_t>(size_bytes);
  slot.error = error;
}

std::size_t ScanErrors::kept(ScanErrorKind kind) const {
  MutexLock lock(mutex_);
  return kept_[index_of(kind)];
}

ScanErrors::Report ScanErrors::report(ScanErrorKind kind, std::size_t index) const {
  MutexLock lock(mutex_);
  assert(index < kept_[index_of(kind)]);
  const Slot& slot = slots_[index_of(kind) * reports_max + index];
  return {.error = slot.error, .path = {slot.path, slot.path_size_bytes}};
}

}  // namespace tally
