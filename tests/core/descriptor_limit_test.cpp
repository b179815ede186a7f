#include "core/descriptor_limit.hpp"

#include <sys/resource.h>

#include <catch2/catch.hpp>

using namespace tally;

TEST_CASE("the soft limit of descriptors is raised to the hard one") {
  rlimit was{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &was) == 0);
  const rlimit lowered{.rlim_cur = 100, .rlim_max = was.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &lowered) == 0);
  CHECK(descriptor_limit() == 100);
  const uint32_t raised = raise_descriptor_limit();
  CHECK(raised == descriptor_limit());
  rlimit now{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &now) == 0);
  CHECK(now.rlim_cur == was.rlim_max);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &was) == 0);
}
