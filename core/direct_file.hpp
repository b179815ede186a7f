#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/descriptor_budget.hpp"
#include "core/result.hpp"
#include "core/thread_safety.hpp"

namespace tally {

/// Reads an open regular file at any offset and length through aligned buffers: what lies in the
/// page cache comes from there, all else by direct I/O at the file's own alignment, leaving the
/// page cache as it is. A file without direct I/O is read buffered. Any number of threads may read
/// at once. No operation allocates.
///
/// Opened lazily by the first read that needs it, a second descriptor of the file (O_RDONLY |
/// O_DIRECT, by way of /proc/self/fd) is held until destruction. It is claimed from a budget; as
/// long as there is none left reads are buffered.
class DirectFile {
 public:
  /// What a buffer's address must be a multiple of. It serves every alignment that a filesystem may
  /// ask for, up to this; a file that asks for more is read buffered.
  static constexpr std::size_t buffer_alignment_bytes = 4096;

  /// How much longer than the longest read a buffer must be: a partial unit at both ends.
  static constexpr std::size_t buffer_slack_bytes = 2 * buffer_alignment_bytes;

  /// How reads beyond the page cache are done.
  enum class Mode : uint8_t {
    untried,   ///< no such read yet, or for lack of descriptors or memory; the next one tries
    direct,    ///< through the second descriptor
    buffered,  ///< the file, or its filesystem, has no direct I/O
  };

  /// `fd` is open for reading without O_DIRECT. It stays the caller's. It and the budget of second
  /// descriptors must outlive this object.
  DirectFile(int fd, DescriptorBudget& budget) : fd_(fd), budget_(budget) {}
  DirectFile(const DirectFile&) = delete;
  DirectFile& operator=(const DirectFile&) = delete;

  /// Reads `length_bytes` at `offset` into `buffer` and returns the part of `buffer` in which they
  /// lie: shorter than asked for only at the end of the file, empty past it.
  /// Everything that was written to the file before is seen, written back or not.
  /// `buffer` must be aligned to buffer_alignment_bytes and longer than `length_bytes` by
  /// buffer_slack_bytes or more, else EINVAL. Its contents outside the result are undefined.
  Result<std::span<const std::byte>> read(uint64_t offset, std::size_t length_bytes,
                                          std::span<std::byte> buffer);

  [[nodiscard]] Mode mode() const { return mode_.load(std::memory_order_acquire); }

 private:
  struct Window;

  [[nodiscard]] bool is_cached(const Window& window) const;
  Status read_direct(Window& window);
  Status read_buffered(Window& window) const;
  Mode open_direct() TALLY_EXCLUDES(opening_);
  Mode try_open_direct();

  const int fd_;
  DescriptorBudget& budget_;
  Mutex opening_;
  std::atomic<Mode> mode_ = Mode::untried;
  // Written once, before mode_ becomes direct.
  CountedFd direct_fd_;
  uint64_t alignment_bytes_ = 0;
};

}  // namespace tally
