#include "core/mapping.hpp"

#include <catch2/catch.hpp>

TEST_CASE("a reserved array starts zero-filled and forgets its contents when discarded") {
  tally::ReservedArray<int> array(1'000'000);
  REQUIRE(array.capacity() == 1'000'000);
  REQUIRE(array[999'999] == 0);
  array[5] = 7;
  array.discard();
  REQUIRE(array[5] == 0);
}

TEST_CASE("a reservation of nothing or of more than the address space is an error") {
  REQUIRE(tally::Mapping::reserve(0).error().value == EINVAL);
  REQUIRE(tally::Mapping::reserve(std::size_t{1} << 60).error().value == ENOMEM);
}
