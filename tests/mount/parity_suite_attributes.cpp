// Calls of the parity suite that change attributes: chmod, chown, utimensat.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

constexpr auto same = static_cast<uid_t>(-1);

SystemCall chmod_call() {
  SystemCall call{"chmod", {}};
  for (const mode_t mode : {0U, 0755U, 02644U, 06755U, 01777U}) {
    char name[32];
    ::snprintf(name, sizeof name, "chmod %04o", mode);
    call.variants.push_back(
        {name, [=](const Cell& cell) { return told(::chmod(cell.path.c_str(), mode)); }});
  }
  call.variants.push_back({"fchmod 06644", [](const Cell& cell) {
                             return with_fd(cell.path, O_RDONLY,
                                            [](int fd) { return told(::fchmod(fd, 06644)); });
                           }});
  return call;
}

SystemCall chown_call() {
  SystemCall call{"chown", {}};
  struct Change {
    const char* name;
    uid_t user;
    gid_t group;
  };
  for (const auto& [name, user, group] :
       {Change{"chown user", suite_member, same}, Change{"chown to oneself", suite_owner, same},
        Change{"chown group", same, suite_group},
        Change{"chown foreign group", same, foreign_group},
        Change{"chown primary group", same, suite_owner}, Change{"chown nothing", same, same},
        Change{"chown root", 0, 0}}) {
    call.variants.push_back(
        {name, [=](const Cell& cell) { return told(::chown(cell.path.c_str(), user, group)); }});
  }
  call.variants.push_back({"lchown group", [](const Cell& cell) {
                             return told(::lchown(cell.path.c_str(), same, suite_group));
                           }});
  call.variants.push_back({"fchown group", [](const Cell& cell) {
                             return with_fd(cell.path, O_RDONLY, [](int fd) {
                               return told(::fchown(fd, same, suite_group));
                             });
                           }});
  return call;
}

SystemCall utimensat_call() {
  SystemCall call{"utimensat", {}};
  struct Change {
    const char* name;
    std::array<struct timespec, 2> times;
    int flags;
  };
  for (const auto& [name, times, flags] :
       {Change{"both times", {{{1'200'000'000, 1}, {1'300'000'000, 999'999'999}}}, 0},
        Change{"both times, not following", {{{7, 7}, {8, 8}}}, AT_SYMLINK_NOFOLLOW},
        Change{"atime only", {{{5, 5}, {0, UTIME_OMIT}}}, 0},
        Change{"mtime only", {{{0, UTIME_OMIT}, {6, 6}}}, 0},
        Change{"neither", {{{0, UTIME_OMIT}, {0, UTIME_OMIT}}}, 0},
        Change{"both now", {{{0, UTIME_NOW}, {0, UTIME_NOW}}}, 0},
        Change{"atime now", {{{0, UTIME_NOW}, {0, UTIME_OMIT}}}, 0},
        Change{"mtime now", {{{0, UTIME_OMIT}, {0, UTIME_NOW}}}, 0},
        Change{"atime now and mtime set", {{{0, UTIME_NOW}, {9, 9}}}, 0},
        Change{"before 1970 and after 2038", {{{-5, 5}, {4'000'000'000, 7}}}, 0},
        Change{"beyond what is representable", {{{-5'000'000'000, 5}, {200'000'000'000, 7}}}, 0},
        Change{"too many nanoseconds", {{{1, 1'000'000'000}, {1, 1}}}, 0}}) {
    call.variants.push_back({name, [=](const Cell& cell) {
                               return told(
                                   ::utimensat(AT_FDCWD, cell.path.c_str(), times.data(), flags));
                             }});
  }
  call.variants.push_back({"no times given", [](const Cell& cell) {
                             return told(::utimensat(AT_FDCWD, cell.path.c_str(), nullptr, 0));
                           }});
  call.variants.push_back({"futimens", [](const Cell& cell) {
                             return with_fd(cell.path, O_RDONLY, [](int fd) {
                               const struct timespec times[2] = {{11, 11}, {12, 12}};
                               return told(::futimens(fd, times));
                             });
                           }});
  return call;
}

}  // namespace

std::vector<SystemCall> attribute_calls() { return {chmod_call(), chown_call(), utimensat_call()}; }

}  // namespace tally::test
