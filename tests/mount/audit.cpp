#include "tests/mount/audit.hpp"

#include <sys/xattr.h>

#include <sstream>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"

using namespace std::chrono_literals;

namespace tally::test {
namespace {

/// What "name=value name=value" says.
std::map<std::string, int64_t> numbers_of(const std::string& report) {
  std::map<std::string, int64_t> numbers;
  std::istringstream words(report);
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    numbers[word.substr(0, equals)] = std::stoll(word.substr(equals + 1));
  }
  return numbers;
}

}  // namespace

std::map<std::string, int64_t> audit(const Mount& mount) {
  REQUIRE(::setxattr(mount.at().c_str(), audit_name, "now", 3, 0) == 0);
  while (true) {
    const std::string report = read_xattr(mount.at(), audit_name).value();
    if (report != "running") return numbers_of(report);
    std::this_thread::sleep_for(5ms);
  }
}

}  // namespace tally::test
