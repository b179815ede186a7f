// Calls of the parity suite on extended attributes.

#include <fcntl.h>
#include <sys/xattr.h>

#include <algorithm>

#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

std::string set(const std::string& path, const std::string& name, const std::string& value,
                int flags) {
  return told(::setxattr(path.c_str(), name.c_str(), value.data(), value.size(), flags));
}

/// u::rw-, g::r--, o::r-- in the form of linux/posix_acl_xattr.h: what a mode of 0644 says.
const std::string minimal_acl(
    "\2\0\0\0\1\0\6\0\xff\xff\xff\xff\4\0\4\0\xff\xff\xff\xff"
    "\40\0\4\0\xff\xff\xff\xff",
    28);
/// The same, and u:4003:rwx with a mask of rwx.
const std::string larger_acl(
    "\2\0\0\0\1\0\6\0\xff\xff\xff\xff\2\0\7\0\xa3\x0f\0\0"
    "\4\0\4\0\xff\xff\xff\xff\20\0\7\0\xff\xff\xff\xff"
    "\40\0\4\0\xff\xff\xff\xff",
    44);
/// cap_net_raw=ep, as VFS_CAP_REVISION_2 (linux/capability.h).
const std::string file_capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);

Variant setting(const char* name, const std::string& xattr, const std::string& value,
                int flags = 0) {
  return {name, [=](const Cell& cell) { return set(cell.path, xattr, value, flags); }};
}

SystemCall setxattr_call() {
  return {"setxattr",
          {setting("user", "user.x", "value"), setting("user, empty", "user.x", ""),
           setting("user, large", "user.x", std::string(3'000, 'v')),
           setting("user, too large", "user.x", std::string(70'000, 'v')),
           setting("user, to create", "user.x", "value", XATTR_CREATE),
           setting("user, to replace what is not there", "user.x", "value", XATTR_REPLACE),
           setting("trusted", "trusted.x", "value"), setting("security", "security.x", "value"),
           setting("security.capability", "security.capability", file_capability),
           setting("security.capability that is none", "security.capability", "junk"),
           setting("an ACL", "system.posix_acl_access", larger_acl),
           setting("an ACL that a mode can say", "system.posix_acl_access", minimal_acl),
           setting("a default ACL", "system.posix_acl_default", larger_acl),
           setting("an ACL that is none", "system.posix_acl_access", "junk"),
           setting("an unknown space", "unknown.x", "value"),
           setting("an unknown system name", "system.unknown", "value"),
           setting("no name in the space", "user.", "value"),
           setting("a name of 256 bytes", "user." + std::string(251, 'n'), "value")}};
}

SystemCall lsetxattr_call() {
  const auto setting_it = [](const char* name, const char* xattr) {
    return Variant{name, [=](const Cell& cell) {
                     return told(::lsetxattr(cell.path.c_str(), xattr, "v", 1, 0));
                   }};
  };
  return {"lsetxattr", {setting_it("user", "user.x"), setting_it("trusted", "trusted.x")}};
}

SystemCall getxattr_call() {
  const auto getting = [](const char* xattr, size_t room) {
    return [=](const Cell& cell) {
      char value[1000] = {};
      const long length = ::getxattr(cell.path.c_str(), xattr, value, room);
      if (length < 0 || room == 0) return told(length);
      std::string seen;
      for (const char c : std::string(value, static_cast<size_t>(length)))
        seen += std::to_string(static_cast<int>(c)) + ".";
      return seen;
    };
  };
  return {"getxattr",
          {{"user that is not there", getting("user.x", 1000)},
           {"trusted that is not there", getting("trusted.x", 1000)},
           {"security.capability", getting("security.capability", 1000)},
           {"security.capability, too little room", getting("security.capability", 3)},
           {"an ACL", getting("system.posix_acl_access", 1000)},
           {"an ACL's size", getting("system.posix_acl_access", 0)},
           {"a default ACL", getting("system.posix_acl_default", 1000)},
           {"an unknown space", getting("unknown.x", 1000)}}};
}

SystemCall listxattr_call() {
  return {"listxattr",
          {{"after one was set",
            [](const Cell& cell) {
              std::string seen = set(cell.path, "user.one", "1", 0) + " ";
              seen += set(cell.path, "trusted.two", "2", 0) + " ";
              char names[1000] = {};
              const long length = ::listxattr(cell.path.c_str(), names, sizeof names);
              if (length < 0) return seen + told(-1);
              std::replace(names, names + length, '\0', ' ');
              return seen + names;
            }},
           {"size",
            [](const Cell& cell) { return told(::listxattr(cell.path.c_str(), nullptr, 0)); }}}};
}

SystemCall removexattr_call() {
  const auto removing = [](const char* name, const char* xattr) {
    return Variant{name, [=](const Cell& cell) {
                     const std::string made = set(cell.path, xattr, "1", 0);
                     return made + " " + told(::removexattr(cell.path.c_str(), xattr));
                   }};
  };
  return {"removexattr",
          {removing("user", "user.x"),
           removing("trusted", "trusted.x"),
           removing("security.capability", "security.capability"),
           removing("an ACL", "system.posix_acl_access"),
           removing("a default ACL", "system.posix_acl_default"),
           {"user that is not there",
            [](const Cell& cell) { return told(::removexattr(cell.path.c_str(), "user.x")); }}}};
}

}  // namespace

std::vector<SystemCall> xattr_calls() {
  return {setxattr_call(), lsetxattr_call(), getxattr_call(), listxattr_call(), removexattr_call()};
}

}  // namespace tally::test
