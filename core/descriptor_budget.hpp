#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#include "core/unique_fd.hpp"

namespace tally {

/// How many descriptors may be open for one kind of use. Thread-safe.
class DescriptorBudget {
 public:
  explicit DescriptorBudget(uint32_t limit) : limit_(limit) {}
  DescriptorBudget(const DescriptorBudget&) = delete;
  DescriptorBudget& operator=(const DescriptorBudget&) = delete;

  /// Claims one descriptor; false when all are claimed.
  [[nodiscard]] bool try_claim();
  void give_back();

  [[nodiscard]] uint32_t claimed() const { return claimed_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint32_t limit() const { return limit_; }

 private:
  const uint32_t limit_;
  std::atomic<uint32_t> claimed_ = 0;
};

/// Sole owner of a descriptor and of its claim on the budget. Move-only.
class CountedFd {
 public:
  CountedFd() = default;
  /// Takes over a claim made by try_claim().
  CountedFd(DescriptorBudget& budget, UniqueFd fd) : budget_(&budget), fd_(std::move(fd)) {}
  CountedFd(CountedFd&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), fd_(std::move(other.fd_)) {}
  CountedFd& operator=(CountedFd&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~CountedFd();

  [[nodiscard]] int get() const { return fd_.get(); }
  explicit operator bool() const { return static_cast<bool>(fd_); }

  /// Gives up ownership of both: the caller closes the descriptor and gives the claim back.
  [[nodiscard]] int release() {
    budget_ = nullptr;
    return fd_.release();
  }

 private:
  DescriptorBudget* budget_ = nullptr;
  UniqueFd fd_;
};

}  // namespace tally
