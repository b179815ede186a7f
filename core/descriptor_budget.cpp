#include "core/descriptor_budget.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cassert>
#include <limits>

namespace tally {

uint32_t DescriptorBudget::raise_process_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;  // the kernel's default, INR_OPEN_CUR
  const rlimit raised{.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
  if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  return static_cast<uint32_t>(
      std::min<rlim_t>(limit.rlim_cur, std::numeric_limits<int32_t>::max()));
}

bool DescriptorBudget::try_claim() {
  uint32_t claimed = claimed_.load(std::memory_order_relaxed);
  do {
    if (claimed >= limit_) return false;
  } while (!claimed_.compare_exchange_weak(claimed, claimed + 1, std::memory_order_relaxed));
  return true;
}

void DescriptorBudget::give_back() {
  [[maybe_unused]] const uint32_t before = claimed_.fetch_sub(1, std::memory_order_relaxed);
  assert(before != 0);
}

CountedFd::~CountedFd() {
  if (budget_ == nullptr) return;
  fd_.reset();  // first, so that nobody opens one in its place that does not exist yet
  budget_->give_back();
}

}  // namespace tally
