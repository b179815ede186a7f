#include "core/file_stat.hpp"

#include <limits>

#include <catch2/catch.hpp>

using tally::FileStat;
using tally::TimeNs;

TEST_CASE("a time that nanoseconds can't express is the first or the last that they can") {
  const auto ctime_ns = [](int64_t seconds, uint32_t nanoseconds) {
    struct statx stx = {};
    stx.stx_ctime.tv_sec = seconds;
    stx.stx_ctime.tv_nsec = nanoseconds;
    return FileStat::from(stx).ctime_ns;
  };
  constexpr TimeNs last_ns = std::numeric_limits<TimeNs>::max();
  CHECK(ctime_ns(1'700'000'000, 5) == 1'700'000'000'000'000'005);
  CHECK(ctime_ns(-1, 0) == -1'000'000'000);
  CHECK(ctime_ns(last_ns / 1'000'000'000, 0) > 0);
  CHECK(ctime_ns(last_ns / 1'000'000'000, 999'999'999) == last_ns);
  CHECK(ctime_ns(9'300'000'000, 0) == last_ns);
  CHECK(ctime_ns(std::numeric_limits<int64_t>::min(), 0) == std::numeric_limits<TimeNs>::min());
}
