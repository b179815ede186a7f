#pragma once

#include <cstdint>
#include <map>
#include <ostream>
#include <string>

#include "core/file_stat.hpp"

namespace tally::test {

/// All counters of one directory, as the design's table defines them.
struct Counters {
  int64_t rbytes = 0;
  int64_t rdisk = 0;  ///< bytes, the directory itself included
  int64_t rfiles = 0;
  int64_t rsubdirs = 0;
  int64_t rentries = 0;
  int64_t entries = 0;
  int64_t files = 0;
  int64_t subdirs = 0;
  int64_t runique = 0;    ///< bytes on disk, the directory itself included
  TimeNs rctime_ns = 0;   ///< newest st_ctime of the directory and of everything below it
  int64_t st_blocks = 0;  ///< of the directory itself, 512-byte units

  friend bool operator==(const Counters&, const Counters&) = default;
};

std::ostream& operator<<(std::ostream& out, const Counters& counters);

/// Path below the counted directory ("" is that directory itself, else "a/b") to its counters.
using CountMap = std::map<std::string, Counters>;

/// The oracle: walks `directory` once and counts every directory in it, the plainest way: each
/// directory has the set of all inodes below it, and sets are merged upwards. Symbolic links are
/// not followed; paths longer than PATH_MAX are fine. Throws std::system_error on anything it
/// cannot read: an oracle with holes is none.
CountMap naive_count(const std::string& directory);

}  // namespace tally::test
