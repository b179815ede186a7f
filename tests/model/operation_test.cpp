#include "tests/model/operation.hpp"

#include <set>
#include <stdexcept>

#include <catch2/catch.hpp>

#include "tests/model/accounts_model.hpp"
#include "tests/model/shrink.hpp"

using namespace tally::test;

namespace {

constexpr OperationForm unlinks[] = {{"unlink", "#"}};

std::vector<Operation> numbered(uint32_t count) {
  std::vector<Operation> operations;
  for (uint32_t i = 0; i < count; ++i)
    operations.push_back({.kind = 0, .operands = {i}});
  return operations;
}

/// How many of the operations are one of these.
template <class... Number>
std::size_t among(const std::vector<Operation>& operations, Number... wanted) {
  std::size_t found = 0;
  for (const Operation& operation : operations)
    found += ((operation.operands[0] == wanted) || ...) ? 1 : 0;
  return found;
}

}  // namespace

TEST_CASE("a script says what the operations are that it was made of") {
  const std::vector<Operation> operations = {
      {.kind = static_cast<uint8_t>(Change::create), .operands = {17, 3, 4096, 8}},
      {.kind = static_cast<uint8_t>(Change::open), .operands = {2, 17}},
      {.kind = static_cast<uint8_t>(Change::scan_again), .operands = {}}};
  const std::string script = text_of(operations, accounts_vocabulary);
  CHECK(script == "create n17 d3 4096 8\nopen h2 n17\nscan-again\n");
  CHECK(parse_script("# why\n\n" + script, accounts_vocabulary) == operations);
}

TEST_CASE("what is no script is refused with what is wrong in it") {
  for (const char* wrong : {"destroy n1", "unlink", "unlink n1 n2", "unlink d1", "unlink nx",
                            "unlink n4000000000", "write n1 5000000000 8"}) {
    INFO(wrong);
    CHECK_THROWS_AS(parse_script(wrong, accounts_vocabulary), std::invalid_argument);
  }
}

TEST_CASE("shrinking keeps just the operations that a failure needs") {
  const auto fails = [](const std::vector<Operation>& some) {
    return among(some, 3U, 500U, 997U) == 3;
  };
  const std::vector<Operation> shrunk = shrink(numbered(1000), unlinks, fails);
  CHECK(shrunk.size() == 3);
  CHECK(among(shrunk, 3U, 500U, 997U) == 3);
}

TEST_CASE("shrinking a failure that needs nothing leaves nothing") {
  CHECK(shrink(numbered(100), unlinks, [](const auto&) { return true; }).empty());
}

TEST_CASE("shrinking ends with what it has when its trials are used up") {
  unsigned trials = 0;
  const auto fails = [&](const std::vector<Operation>& some) {
    ++trials;
    return among(some, 999U) == 1;
  };
  const std::vector<Operation> shrunk = shrink(numbered(1000), unlinks, fails, 2);
  CHECK(trials == 2);
  CHECK(shrunk.size() < 1000);
  CHECK(among(shrunk, 999U) == 1);
}

TEST_CASE("shrinking simplifies operands, so that what only they named goes") {
  // Fails if a name is made in any directory that was made, or in the root.
  constexpr OperationForm forms[] = {{"mkdir", "d"}, {"create", "nd"}};
  const auto fails = [](const std::vector<Operation>& some) {
    std::set<uint32_t> dirs = {0};
    for (const Operation& operation : some) {
      if (operation.kind == 0) dirs.insert(operation.operands[0]);
      if (operation.kind == 1 && dirs.contains(operation.operands[1])) return true;
    }
    return false;
  };
  const std::vector<Operation> found = {
      {.kind = 0, .operands = {4}}, {.kind = 0, .operands = {7}}, {.kind = 1, .operands = {5, 7}}};
  CHECK(text_of(shrink(found, forms, fails), forms) == "create n0 d0\n");
}
