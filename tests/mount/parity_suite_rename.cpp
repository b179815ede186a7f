// Rename in the parity suite: every flag, over every kind of victim.

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>

#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

std::string renamed(const std::string& from, const std::string& to, unsigned flags = 0) {
  return told(::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags));
}

SystemCall rename_call() {
  SystemCall call{"rename", {}};
  const auto add = [&](const char* name, std::function<std::string(const Cell&)> act) {
    call.variants.push_back({name, std::move(act), true});
  };
  add("to a new name", [](const Cell& cell) { return renamed(cell.path, cell.fresh()); });
  add("into another directory",
      [](const Cell& cell) { return renamed(cell.path, cell.directory() + "/moved"); });
  add("onto a file", [](const Cell& cell) { return renamed(cell.path, cell.other()); });
  add("onto a directory", [](const Cell& cell) { return renamed(cell.path, cell.directory()); });
  add("a file onto it", [](const Cell& cell) { return renamed(cell.other(), cell.path); });
  add("a directory onto it", [](const Cell& cell) { return renamed(cell.directory(), cell.path); });
  add("its parent into it", [](const Cell& cell) {
    // Below an empty path would be below the root of everything.
    return cell.path.empty() ? "no path" : renamed(cell.parent, cell.path + "/x");
  });
  add("onto itself", [](const Cell& cell) { return renamed(cell.path, cell.path); });
  add("onto its other name", [](const Cell& cell) { return renamed(cell.path, cell.second()); });
  add("onto another filesystem", [](const Cell& cell) { return renamed(cell.path, "/proc/new"); });
  return call;
}

SystemCall renameat2_call() {
  SystemCall call{"renameat2", {}};
  const auto add = [&](const char* name, std::function<std::string(const Cell&)> act) {
    call.variants.push_back({name, std::move(act), true});
  };
  add("NOREPLACE to a new name",
      [](const Cell& cell) { return renamed(cell.path, cell.fresh(), RENAME_NOREPLACE); });
  add("NOREPLACE onto a file",
      [](const Cell& cell) { return renamed(cell.path, cell.other(), RENAME_NOREPLACE); });
  add("NOREPLACE a file onto it",
      [](const Cell& cell) { return renamed(cell.other(), cell.path, RENAME_NOREPLACE); });
  add("EXCHANGE with nothing",
      [](const Cell& cell) { return renamed(cell.path, cell.fresh(), RENAME_EXCHANGE); });
  add("EXCHANGE with a file",
      [](const Cell& cell) { return renamed(cell.path, cell.other(), RENAME_EXCHANGE); });
  add("EXCHANGE with a directory",
      [](const Cell& cell) { return renamed(cell.path, cell.directory(), RENAME_EXCHANGE); });
  add("EXCHANGE with itself",
      [](const Cell& cell) { return renamed(cell.path, cell.path, RENAME_EXCHANGE); });
  add("EXCHANGE with its parent",
      [](const Cell& cell) { return renamed(cell.path, cell.parent, RENAME_EXCHANGE); });
  add("WHITEOUT to a new name",
      [](const Cell& cell) { return renamed(cell.path, cell.fresh(), RENAME_WHITEOUT); });
  add("WHITEOUT onto a file",
      [](const Cell& cell) { return renamed(cell.path, cell.other(), RENAME_WHITEOUT); });
  add("flags that exclude each other", [](const Cell& cell) {
    return renamed(cell.path, cell.other(), RENAME_EXCHANGE | RENAME_NOREPLACE);
  });
  add("a flag that does not exist",
      [](const Cell& cell) { return renamed(cell.path, cell.fresh(), 1U << 7); });
  return call;
}

}  // namespace

std::vector<SystemCall> rename_calls() { return {rename_call(), renameat2_call()}; }

}  // namespace tally::test
