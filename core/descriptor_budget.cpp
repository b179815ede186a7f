#include "core/descriptor_budget.hpp"

#include <cassert>

namespace tally {

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
