#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tests/mount/mount.hpp"

// The parity suite: every variant of every system call × every target × every credential, done
// natively and through a mount. Each combination is a cell with a folder of its own, in which its
// target is made anew:
//
//     c7/t            the target of cell 7, where it has a plain name
//     c7/other, c7/dir
//                     a file and an empty directory of the owner's, for calls that take two paths
//     second-c7       another name of the target, if it has one
//
// Compared are what the call returned, errno, what it saw, and then everything below the cell:
// types, modes, owners, link counts, sizes, contents, extended attributes, and which times moved.

namespace tally::test {

// Who owns what the targets are made of.
constexpr uid_t suite_owner = 4001;
constexpr uid_t suite_member = 4002;
constexpr uid_t suite_other = 4003;
constexpr gid_t suite_group = 4100;    ///< supplementary group of the owner and the member
constexpr gid_t foreign_group = 4200;  ///< of nobody

/// Where a cell's objects lie: paths relative to the working directory of who acts on them.
struct Cell {
  std::string parent;
  std::string path;  ///< of the target, as the call is given it
  [[nodiscard]] std::string target() const { return parent + "/t"; }
  [[nodiscard]] std::string other() const { return parent + "/other"; }
  [[nodiscard]] std::string directory() const { return parent + "/dir"; }
  [[nodiscard]] std::string fresh() const { return parent + "/new"; }
  [[nodiscard]] std::string second() const { return "second-" + parent; }
};

/// What a call is made on.
struct Target {
  std::string name;
  /// Makes it, as root; what it leaves of `cell.path` empty stays `cell.target()`.
  std::function<void(Cell& cell)> make;
};

/// Who makes a call.
struct Credential {
  std::string name;
  uid_t user = 0;
  gid_t group = 0;
  std::vector<gid_t> groups = {};
  uint64_t capabilities_dropped = 0;  ///< of root
  uint64_t capabilities_kept = 0;     ///< of a user
  bool own_namespace = false;         ///< as root of a user namespace that only knows this user
};

/// One way to make a system call. What `act` returns is compared: results and what they told.
struct Variant {
  std::string name;
  std::function<std::string(const Cell& cell)> act;
  bool needs_other = false;  ///< `cell.other()` and `cell.directory()` are there
};

struct SystemCall {
  std::string name;
  std::vector<Variant> variants;
};

std::span<const Target> suite_targets();
std::span<const Credential> suite_credentials();

// The calls, by what they are about.
std::vector<SystemCall> attribute_calls();
std::vector<SystemCall> name_calls();
std::vector<SystemCall> rename_calls();
std::vector<SystemCall> open_calls();
std::vector<SystemCall> data_calls();
std::vector<SystemCall> query_calls();
std::vector<SystemCall> xattr_calls();

/// All of them.
std::vector<SystemCall> suite_calls();

/// How many comparisons a call stands for.
size_t cells_of(const SystemCall& call);

/// Makes the calling process act with a credential, for good. Ends the process if it can't.
void become(const Credential& credential);

/// Does all cells of a call natively and in the mount, and checks (CHECK) that they end in the same
/// way, and after each credential that every counter equals a recount.
void check_call(const MountFolders& folders, const Mount& mount, const SystemCall& call);

// --- What variants say of their calls -----------------------------------------------------------

/// The result of a system call; the name of errno if it is -1. Takes the call as its argument.
std::string told(long returned);

/// "open", or the name of errno. Closes the descriptor.
std::string told_fd(int returned);

/// Opens the path, then has `act` do something with the descriptor: its errno, or what `act` tells.
std::string with_fd(const std::string& path, int flags, const std::function<std::string(int)>& act);

}  // namespace tally::test
