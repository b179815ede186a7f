// Extended attributes: the counters by name, all others from the lower filesystem. Its calls take
// /proc/self/fd/N, which leads to the inode itself and serves what can't be opened, too.

#include <linux/capability.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "core/hot_path_guard.hpp"
#include "fs/auditor.hpp"
#include "fs/counters_xattr.hpp"
#include "fs/descriptor_path.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

namespace {

Result<std::size_t> size_of(ssize_t result) {
  if (result < 0) return last_error();
  return static_cast<std::size_t>(result);
}

/// Takes out the names that only CAP_SYS_ADMIN may see (xattr(7)); the daemon, which asks, has it.
/// Returns what remains, in bytes.
std::size_t without_trusted(std::span<char> names) {
  char* end = names.data();
  for (std::size_t at = 0; at < names.size();) {
    const std::string_view name(names.data() + at);
    if (!name.starts_with("trusted.")) end = std::copy_n(name.data(), name.size() + 1, end);
    at += name.size() + 1;
  }
  return static_cast<std::size_t>(end - names.data());
}

bool has_trusted(std::span<const char> names) {
  for (std::size_t at = 0; at < names.size();) {
    const std::string_view name(names.data() + at);
    if (name.starts_with("trusted.")) return true;
    at += name.size() + 1;
  }
  return false;
}

/// As getxattr(2) returns a value.
Result<std::size_t> copy_value(std::string_view text, std::span<char> value) {
  if (!value.empty() && value.size() < text.size()) return failure(ERANGE);
  if (!value.empty()) text.copy(value.data(), value.size());
  return text.size();
}

bool is_acl_name(std::string_view name) { return name.starts_with("system.posix_acl_"); }

}  // namespace

Result<std::size_t> Filesystem::getxattr(NodeId node, const char* name, std::span<char> value) {
  TALLY_HOT_PATH("getxattr");
  if (node == FUSE_ROOT_ID && name == audit_name) return get_audit(value);
  if (is_counter_name(name)) return get_counter(node, name, value);
  const auto inode = inodes_.pin(node);
  if (!inode) return std::unexpected(inode.error());
  if (std::string_view(name) == "security.capability" && (*inode)->restrictions() & ST_NOSUID)
    return failure(ENODATA);
  const DescriptorPath self(inode->fd());
  auto size = size_of(::getxattr(self.path(), name, value.data(), value.size()));
  // With POSIX_ACL the kernel asks for them to check permissions, and to it any other error is a
  // refusal (fs/fuse/acl.c, __fuse_get_acl).
  if (!size && size.error().value == EOPNOTSUPP && is_acl_name(name)) return failure(ENODATA);
  return size;
}

Result<std::size_t> Filesystem::get_counter(NodeId node, const char* name, std::span<char> value) {
  const auto inode = inodes_.get(node);
  if (!inode) return std::unexpected(inode.error());
  const auto counter = find_counter(name);
  const DirIndex dir = (*inode)->dir_now();
  if (!counter || !dir) return failure(ENODATA);
  if (*counter == Counter::orphan_bytes && node != FUSE_ROOT_ID) return failure(ENODATA);
  const DirCounters counters = accounts_.tree().counters(dir);
  const Auditor* const auditor = auditor_.load();
  const CounterText text(
      *counter, counters,
      {.orphan_bytes = accounts_.orphan_bytes(),
       .scanned_percent = auditor != nullptr ? auditor->scanned_percent() : std::optional(0U),
       .all_suspect = auditor != nullptr && auditor->doubts_everything()});
  return copy_value(text.view(), value);
}

Result<std::size_t> Filesystem::get_audit(std::span<char> value) {
  Auditor* const auditor = auditor_.load();
  if (auditor == nullptr) return failure(ENODATA);
  std::array<char, 160> text;
  return copy_value({text.data(), auditor->describe(text)}, value);
}

Status Filesystem::set_audit(std::span<const char> value) {
  Auditor* const auditor = auditor_.load();
  if (auditor == nullptr || std::string_view(value.data(), value.size()) != audit_now)
    return failure(EINVAL);
  auditor->request_audit();
  return {};
}

Result<std::size_t> Filesystem::listxattr(const Caller& caller, NodeId node,
                                          std::span<char> names) {
  TALLY_HOT_PATH("listxattr");
  const auto inode = inodes_.pin(node);
  if (!inode) return std::unexpected(inode.error());
  const DescriptorPath self(inode->fd());
  auto size = size_of(::listxattr(self.path(), names.data(), names.size()));
  if (size && has_trusted(names.first(*size)) && !credentials_.holds(caller, CAP_SYS_ADMIN))
    size = without_trusted(names.first(*size));
  if (!size || !options_.list_counters || !(*inode)->dir_now()) return size;
  const std::string_view counters = counter_name_list(node == FUSE_ROOT_ID);
  if (names.size() - *size < counters.size()) return failure(E2BIG);
  std::copy(counters.begin(), counters.end(), names.data() + *size);
  return *size + counters.size();
}

/// To set an ACL changes the mode, and setting or removing one clears setgid unless the caller
/// belongs to the file's group.
Status Filesystem::become_xattr_setter(const Caller& caller, const char* name) const {
  return is_acl_name(name) ? credentials_.become_exactly(caller) : credentials_.become_daemon();
}

Status Filesystem::setxattr(const Caller& caller, NodeId node, const char* name,
                            std::span<const char> value, int flags) {
  TALLY_HOT_PATH("setxattr");
  if (node == FUSE_ROOT_ID && name == audit_name) return set_audit(value);
  if (const Status became = become_xattr_setter(caller, name); !became) return became;
  return change_xattr(node, name, [&](const char* path) {
    return ::setxattr(path, name, value.data(), value.size(), flags);
  });
}

Status Filesystem::removexattr(const Caller& caller, NodeId node, const char* name) {
  TALLY_HOT_PATH("removexattr");
  if (const Status became = become_xattr_setter(caller, name); !became) return became;
  return change_xattr(node, name, [&](const char* path) { return ::removexattr(path, name); });
}

template <class Change>
Status Filesystem::change_xattr(NodeId node, const char* name, Change change) {
  if (is_counter_name(name)) return failure(EPERM);
  const auto inode = inodes_.pin(node);
  if (!inode) return std::unexpected(inode.error());
  if (change(DescriptorPath(inode->fd()).path()) != 0) return last_error();
  // The ctime moves, and a large attribute takes a block.
  static_cast<void>(observe(**inode, inode->fd(), true));
  return {};
}

}  // namespace tally::fs
