#include "core/scan_context.hpp"

#include <string>
#include <vector>

#include <catch2/catch.hpp>

using namespace tally;

namespace {

/// root / above / below, each entered.
struct Line {
  explicit Line(bool keep_names) : scan(tree, links, 1, 16, keep_names, nullptr) {
    NameArena::Writer writer(scan.names);
    for (const char* name : {"", "above", "below"}) {
      const FileStat stat{.key = {.ino = dirs.size() + 1, .dev = 1}, .mode = S_IFDIR, .nlink = 2};
      dirs.push_back(tree.insert_scanned(dirs.empty() ? DirIndex{} : dirs.back(), stat).value());
      scan.enter(dirs.back(), *name == '\0' ? NameRef{} : writer.store(name).value(), stat);
    }
  }

  DirTree tree{16};
  HardLinks links{tree, 16};
  ScanContext scan;
  std::vector<DirIndex> dirs;
};

}  // namespace

TEST_CASE("a path is written from the root down, with a leaf or without") {
  const Line line(false);
  std::vector<char> room(100);
  CHECK(line.scan.path_into(room, line.dirs[0]).value().empty());
  CHECK(line.scan.path_into(room, line.dirs[1]).value() == "above");
  CHECK(line.scan.path_into(room, line.dirs[2]).value() == "above/below");
  CHECK(line.scan.path_into(room, line.dirs[2], "leaf").value() == "above/below/leaf");
  CHECK(room.back() == '\0');
}

TEST_CASE("a path that doesn't fit is refused, one that just fits is not") {
  const Line line(false);
  std::vector<char> room(sizeof "above/below");
  CHECK(line.scan.path_into(room, line.dirs[2]).value() == "above/below");
  room.resize(room.size() - 1);
  CHECK(line.scan.path_into(room, line.dirs[2]).error() == Errno{ENAMETOOLONG});
}

TEST_CASE("names go when their directories are left, unless they are to be kept") {
  for (const bool keep_names : {false, true}) {
    Line line(keep_names);
    CHECK(line.scan.names.blocks_in_use() == 1);
    for (auto dir = line.dirs.rbegin(); dir != line.dirs.rend(); ++dir)
      line.scan.leave(*dir);
    CHECK(line.scan.names.blocks_in_use() == (keep_names ? 1 : 0));
  }
}
