#include "core/fixed_set.hpp"

#include <random>
#include <set>

#include <catch2/catch.hpp>

#include "core/hot_path_guard.hpp"
#include "tests/fake_tree.hpp"

using tally::FixedSet;
using tally::Insertion;

namespace {

/// Puts a key where the test wants it: its home is `key modulo table size`.
struct Identity {
  uint64_t operator()(uint64_t key) const { return key; }
};

/// Makes long clusters: four homes for all keys, the last two slots of any table among them.
struct Clustering {
  uint64_t operator()(uint64_t key) const { return key % 4 - 2; }
};

/// Random operations on a set and on std::set, compared at every step.
template <class Set>
void compare_with_model(uint64_t seed, std::size_t capacity) {
  INFO("seed " << seed << ", capacity " << capacity);
  std::mt19937_64 random(seed);
  Set set(capacity);
  std::set<uint64_t> model;
  for (int step = 0; step < 20'000; ++step) {
    const uint64_t key = random() % (2 * capacity);
    REQUIRE(set.contains(key) == model.contains(key));
    if (random() % 5 < 3) {
      const Insertion expected = model.contains(key)        ? Insertion::present
                                 : model.size() == capacity ? Insertion::full
                                                            : Insertion::inserted;
      REQUIRE(set.insert(key) == expected);
      if (expected == Insertion::inserted) model.insert(key);
    } else {
      REQUIRE(set.erase(key) == (model.erase(key) == 1));
    }
    REQUIRE(set.size() == model.size());
  }
  for (uint64_t key = 0; key < 2 * capacity; ++key)
    REQUIRE(set.contains(key) == model.contains(key));
}

}  // namespace

TEST_CASE("an empty fixed set contains nothing, not even a key of zero bytes") {
  FixedSet<uint64_t> set(10);
  REQUIRE(set.size() == 0);
  REQUIRE_FALSE(set.contains(0));
  REQUIRE_FALSE(set.contains(1));
  REQUIRE_FALSE(set.erase(0));
}

TEST_CASE("a fixed set tells a new key from one that is there already") {
  FixedSet<uint64_t> set(10);
  REQUIRE(set.insert(0) == Insertion::inserted);
  REQUIRE(set.insert(0) == Insertion::present);
  REQUIRE(set.contains(0));
  REQUIRE(set.size() == 1);
}

TEST_CASE("a fixed set of any capacity takes that many keys and no more") {
  for (std::size_t capacity = 0; capacity <= 50; ++capacity) {
    FixedSet<uint64_t> set(capacity);
    REQUIRE(set.capacity() == capacity);
    for (uint64_t key = 0; key < capacity; ++key)
      REQUIRE(set.insert(key) == Insertion::inserted);
    REQUIRE(set.insert(1000) == Insertion::full);
    REQUIRE_FALSE(set.contains(1000));
    for (uint64_t key = 0; key < capacity; ++key)
      REQUIRE(set.insert(key) == Insertion::present);
    REQUIRE(set.size() == capacity);
  }
}

TEST_CASE("a full fixed set has room again after an erasure") {
  FixedSet<uint64_t> set(3);
  for (uint64_t key = 0; key < 1000; ++key) {
    REQUIRE(set.insert(key) == Insertion::inserted);
    if (set.size() < 3) continue;
    REQUIRE(set.insert(key + 1) == Insertion::full);
    REQUIRE(set.erase(key - 2));
    REQUIRE_FALSE(set.contains(key - 2));
    REQUIRE(set.contains(key));
  }
}

TEST_CASE("erasing from a cluster that wraps around keeps its other keys findable") {
  // Six keys in a table of 8. Homes: 6, 6, 7, 6, 0, 1, so that they lie in slots 6 7 0 1 2 3.
  const uint64_t keys[] = {6, 14, 7, 22, 8, 9};
  for (const uint64_t erased : keys) {
    FixedSet<uint64_t, Identity> set(6);
    for (const uint64_t key : keys)
      REQUIRE(set.insert(key) == Insertion::inserted);
    REQUIRE(set.erase(erased));
    REQUIRE_FALSE(set.erase(erased));
    for (const uint64_t key : keys) {
      INFO("erased " << erased << ", looked up " << key);
      REQUIRE(set.contains(key) == (key != erased));
    }
    REQUIRE(set.insert(erased) == Insertion::inserted);
  }
}

TEST_CASE("a fixed set agrees with std::set through random operations") {
  const uint64_t seed = tally::test::seed_or(1);
  for (const std::size_t capacity : {1U, 5U, 12U, 100U}) {
    compare_with_model<FixedSet<uint64_t>>(seed, capacity);
    compare_with_model<FixedSet<uint64_t, Identity>>(seed, capacity);
    compare_with_model<FixedSet<uint64_t, Clustering>>(seed, capacity);
  }
}

TEST_CASE("a fixed set allocates nothing after construction") {
  FixedSet<uint64_t> set(2);
  bool as_expected = true;
  {
    TALLY_HOT_PATH("fixed set");
    as_expected = set.insert(1) == Insertion::inserted && set.insert(2) == Insertion::inserted &&
                  set.insert(3) == Insertion::full && set.erase(1) && !set.contains(1);
  }
  REQUIRE(as_expected);
}
