#include "core/descriptor_limit.hpp"

#include <sys/resource.h>

#include <catch2/catch.hpp>

#include "tests/core/scanned.hpp"

using namespace tally;

TEST_CASE("the soft limit of descriptors is raised to the hard one") {
  const test::DescriptorLimit lowered(100);
  CHECK(descriptor_limit() == 100);
  const uint32_t raised = raise_descriptor_limit();
  CHECK(raised == descriptor_limit());
  rlimit now{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &now) == 0);
  CHECK(now.rlim_cur == now.rlim_max);
}
