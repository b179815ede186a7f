#include "core/scratch_vec.hpp"

#include <new>
#include <numeric>

#include <catch2/catch.hpp>

#include "core/hot_path_guard.hpp"

using tally::ScratchVec;

TEST_CASE("a new scratch vector is empty") {
  ScratchVec<int> vec(3);
  REQUIRE(vec.empty());
  REQUIRE(vec.size() == 0);
  REQUIRE(vec.capacity() == 3);
  REQUIRE(vec.begin() == vec.end());
  REQUIRE(vec.span().empty());
}

TEST_CASE("a scratch vector without capacity is refused") {
  REQUIRE_THROWS_AS(ScratchVec<int>(0), std::bad_alloc);
}

TEST_CASE("a full scratch vector refuses an element and keeps the ones it has") {
  ScratchVec<int> vec(3);
  for (int i = 1; i <= 3; ++i)
    REQUIRE(vec.push_back(i));
  REQUIRE_FALSE(vec.push_back(4));
  REQUIRE(vec.size() == 3);
  REQUIRE_FALSE(vec.empty());
  REQUIRE(vec[0] == 1);
  REQUIRE(vec[2] == 3);
}

TEST_CASE("iteration and span cover exactly the elements, in order, and may change them") {
  ScratchVec<int> vec(10);
  for (int i = 1; i <= 4; ++i)
    REQUIRE(vec.push_back(i));
  for (int& element : vec)
    element *= 10;
  const ScratchVec<int>& constant = vec;
  REQUIRE(std::accumulate(constant.begin(), constant.end(), 0) == 100);
  REQUIRE(constant.span().size() == 4);
  REQUIRE(constant.span().back() == 40);
  vec.span()[1] = 7;
  REQUIRE(constant[1] == 7);
}

TEST_CASE("a cleared scratch vector takes as many elements as before and shows none of the old") {
  ScratchVec<int> vec(3);
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 3; ++i)
      REQUIRE(vec.push_back(round + i));
    REQUIRE_FALSE(vec.push_back(0));
    REQUIRE(vec[1] == round + 1);
    vec.clear();
    REQUIRE(vec.empty());
    REQUIRE(vec.begin() == vec.end());
  }
}

TEST_CASE("a scratch vector allocates nothing after construction") {
  ScratchVec<int> vec(2);
  bool as_expected = true;
  {
    TALLY_HOT_PATH("scratch vector");
    as_expected = vec.push_back(1) && vec.push_back(2) && !vec.push_back(3);
    vec.clear();
    as_expected = as_expected && vec.push_back(4);
  }
  REQUIRE(as_expected);
  REQUIRE(vec[0] == 4);
}
