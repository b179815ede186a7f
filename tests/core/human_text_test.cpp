#include "core/human_text.hpp"

#include <catch2/catch.hpp>

TEST_CASE("bytes are shown in the unit that leaves one to four digits before the point") {
  CHECK(tally::bytes_text(0) == "0 B");
  CHECK(tally::bytes_text(1023) == "1023 B");
  CHECK(tally::bytes_text(1024) == "1.0 KiB");
  CHECK(tally::bytes_text(38'533'353'502) == "35.9 GiB");
  CHECK(tally::bytes_text((uint64_t{1} << 30) - 1) == "1.0 GiB");
  CHECK(tally::bytes_text(UINT64_MAX) == "16.0 EiB");
}

TEST_CASE("counts have a comma between thousands") {
  CHECK(tally::count_text(0) == "0");
  CHECK(tally::count_text(999) == "999");
  CHECK(tally::count_text(1000) == "1,000");
  CHECK(tally::count_text(1'234'567) == "1,234,567");
}
