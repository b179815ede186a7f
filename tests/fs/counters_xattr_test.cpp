#include "fs/counters_xattr.hpp"

#include <limits>
#include <string>

#include <catch2/catch.hpp>

namespace tally::fs {

namespace {

std::string text_of(Counter counter, const DirCounters& counters, Bytes orphan_bytes = {}) {
  return std::string(CounterText(counter, counters, {.orphan_bytes = orphan_bytes}).view());
}

DirCounters with_rbytes(int64_t bytes) {
  DirCounters counters = {};
  counters.rbytes = {bytes};
  return counters;
}

DirCounters with_rctime(TimeNs time_ns) {
  DirCounters counters = {};
  counters.rctime_ns = time_ns;
  return counters;
}

DirCounters with_suspect(bool suspect) {
  DirCounters counters = {};
  counters.suspect = suspect;
  return counters;
}

}  // namespace

TEST_CASE("every counter goes by its own name") {
  CHECK(find_counter("user.tally.rbytes") == Counter::rbytes);
  CHECK(find_counter("user.tally.rdisk") == Counter::rdisk);
  CHECK(find_counter("user.tally.rfiles") == Counter::rfiles);
  CHECK(find_counter("user.tally.rsubdirs") == Counter::rsubdirs);
  CHECK(find_counter("user.tally.rentries") == Counter::rentries);
  CHECK(find_counter("user.tally.entries") == Counter::entries);
  CHECK(find_counter("user.tally.files") == Counter::files);
  CHECK(find_counter("user.tally.subdirs") == Counter::subdirs);
  CHECK(find_counter("user.tally.rctime") == Counter::rctime);
  CHECK(find_counter("user.tally.rgen") == Counter::rgen);
  CHECK(find_counter("user.tally.runique") == Counter::runique);
  CHECK(find_counter("user.tally.state") == Counter::state);
  CHECK(find_counter("user.tally.orphan_bytes") == Counter::orphan_bytes);
}

TEST_CASE("the names of CephFS stand for the counters that CephFS has") {
  for (const std::string name :
       {"rbytes", "rfiles", "rsubdirs", "rentries", "entries", "files", "subdirs", "rctime"}) {
    INFO(name);
    CHECK(find_counter("ceph.dir." + name).has_value());
    CHECK(find_counter("ceph.dir." + name) == find_counter("user.tally." + name));
  }
  for (const std::string name : {"rdisk", "runique", "rgen", "state", "orphan_bytes", "layout"}) {
    INFO(name);
    CHECK_FALSE(find_counter("ceph.dir." + name).has_value());
    CHECK_FALSE(is_counter_name("ceph.dir." + name));
  }
}

TEST_CASE("all of user.tally. is ours, also what is no counter") {
  for (const std::string name :
       {"user.tally.", "user.tally.rbytes2", "user.tally.RBYTES", "user.tally.user.tally.rbytes"}) {
    INFO(name);
    CHECK(is_counter_name(name));
    CHECK_FALSE(find_counter(name).has_value());
  }
  for (const std::string name : {"", "user.tally", "user.tallyho", "user.rbytes", "ceph.dir.",
                                 "trusted.tally.rbytes", "security.capability"}) {
    INFO(name);
    CHECK_FALSE(is_counter_name(name));
    CHECK_FALSE(find_counter(name).has_value());
  }
}

TEST_CASE("counters are decimal text in bytes and entries") {
  const DirCounters counters{.rbytes = {38533353502},
                             .rdisk = {9},
                             .runique = {8},
                             .rfiles = 70,
                             .rsubdirs = 11,
                             .files = 5,
                             .subdirs = 3,
                             .rctime_ns = 0,
                             .rgen = std::numeric_limits<uint64_t>::max(),
                             .suspect = false};
  CHECK(text_of(Counter::rbytes, counters) == "38533353502");
  CHECK(text_of(Counter::rdisk, counters) == "4608");
  CHECK(text_of(Counter::runique, counters) == "4096");
  CHECK(text_of(Counter::rfiles, counters) == "70");
  CHECK(text_of(Counter::rsubdirs, counters) == "11");
  CHECK(text_of(Counter::rentries, counters) == "81");
  CHECK(text_of(Counter::files, counters) == "5");
  CHECK(text_of(Counter::subdirs, counters) == "3");
  CHECK(text_of(Counter::entries, counters) == "8");
  CHECK(text_of(Counter::rgen, counters) == "18446744073709551615");
  CHECK(text_of(Counter::orphan_bytes, counters, {123}) == "123");
}

TEST_CASE("the largest and the smallest number fit") {
  const auto most = std::numeric_limits<int64_t>::max();
  const auto least = std::numeric_limits<int64_t>::min();
  CHECK(text_of(Counter::rbytes, with_rbytes(most)) == "9223372036854775807");
  CHECK(text_of(Counter::rbytes, with_rbytes(least)) == "-9223372036854775808");
  CHECK(text_of(Counter::rctime, with_rctime(most)) == "9223372036.854775807");
}

TEST_CASE("rctime has seconds, a point and nine digits") {
  CHECK(text_of(Counter::rctime, with_rctime(0)) == "0.000000000");
  CHECK(text_of(Counter::rctime, with_rctime(1)) == "0.000000001");
  CHECK(text_of(Counter::rctime, with_rctime(1'700'000'000'000'000'000)) == "1700000000.000000000");
  CHECK(text_of(Counter::rctime, with_rctime(1'700'000'000'012'345'678)) == "1700000000.012345678");
  CHECK(text_of(Counter::rctime, with_rctime(-1)) == "-1.999999999");
}

TEST_CASE("state tells whether the counters can be relied on") {
  CHECK(text_of(Counter::state, with_suspect(false)) == "exact");
  CHECK(text_of(Counter::state, with_suspect(true)) == "suspect");
}

TEST_CASE("the list of names has each counter once, orphan_bytes at the root only") {
  for (const bool is_root : {false, true}) {
    std::string_view list = counter_name_list(is_root);
    std::size_t names = 0;
    while (!list.empty()) {
      const std::string_view name = list.substr(0, list.find('\0'));
      INFO(name);
      const auto counter = find_counter(name);
      REQUIRE(counter.has_value());
      CHECK(static_cast<std::size_t>(*counter) == names);
      ++names;
      list.remove_prefix(name.size() + 1);
    }
    CHECK(names == (is_root ? 13 : 12));
  }
}

}  // namespace tally::fs
