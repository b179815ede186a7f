#include "tests/skip.hpp"

#include <iostream>

#include <catch2/catch.hpp>

namespace tally::test {

static bool skipped = false;

void skip(const std::string& reason) {
  std::cout << "TALLYFS-SKIP: " << reason << std::endl;
  SUCCEED(reason);
  skipped = true;
}

bool has_skipped() { return skipped; }

}  // namespace tally::test
