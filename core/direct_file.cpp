#include "core/direct_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>

#include "core/hot_path_guard.hpp"

// Two things were measured before this was written (kernel 6.18, ext4, virtio disk).
//
// One pread per read, not several in flight. 1 MiB with O_DIRECT, hot device: one pread 750-1050
// us, one ring with 1 x 1 MiB 770-1010, 2 x 512 KiB 760-1000, 4 x 256 KiB 780-1020, 8 x 128 KiB
// 820-950; four preads of 256 KiB one after the other 970-1080. The kernel already puts all parts
// of a direct read in flight before it waits for the first, so a ring has nothing to add to a read
// that somebody waits for.
//
// cachestat(2), not RWF_NOWAIT, to find out what is cached. preadv2 with RWF_NOWAIT on an uncached
// range fails with EAGAIN as documented, but starts to read the range into the page cache first
// (mm/filemap.c, filemap_get_pages): the device would read everything twice and memory hold it
// twice. cachestat takes 0.3 us on an uncached MiB and 23 us on one cached in 4 KiB folios, a tenth
// of the time to copy it.

namespace tally {

// The part of the file that was asked for, and where it goes. Addresses and offsets are congruent
// modulo buffer_alignment_bytes, so that what is aligned in the file is aligned in memory.
struct DirectFile::Window {
  std::byte* data;  // of the byte at `offset`
  uint64_t offset;
  uint64_t length_bytes;
  uint64_t done_bytes = 0;

  uint64_t end() const { return offset + length_bytes; }

  // Also for positions in the slack before and after.
  std::byte* at(uint64_t position) const {
    return data + (static_cast<int64_t>(position) - static_cast<int64_t>(offset));
  }
};

namespace {

// From include/uapi/linux/mman.h of kernel 6.5; older headers lack them.
constexpr long cachestat_syscall_number = 451;
struct CachestatRange {
  uint64_t off;
  uint64_t len;
};
struct Cachestat {
  uint64_t nr_cache;
  uint64_t nr_dirty;
  uint64_t nr_writeback;
  uint64_t nr_evicted;
  uint64_t nr_recently_evicted;
};

uint64_t pages_between(uint64_t begin, uint64_t end) {
  static const auto page_size_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return (end - 1) / page_size_bytes - begin / page_size_bytes + 1;
}

}  // namespace

Result<std::span<const std::byte>> DirectFile::read(uint64_t offset, std::size_t length_bytes,
                                                    std::span<std::byte> buffer) {
  TALLY_HOT_PATH("DirectFile::read");
  constexpr uint64_t offset_max = std::numeric_limits<int64_t>::max();
  if (buffer.size() < buffer_slack_bytes || length_bytes > buffer.size() - buffer_slack_bytes ||
      reinterpret_cast<std::uintptr_t>(buffer.data()) % buffer_alignment_bytes != 0 ||
      offset > offset_max - buffer.size())
    return failure(EINVAL);

  Window window{buffer.data() + offset % buffer_alignment_bytes, offset, length_bytes};
  if (length_bytes > 0 && !is_cached(window))
    if (const Status status = read_direct(window); !status) return std::unexpected(status.error());
  // Whatever the reason why something is missing - cached, no direct I/O, end of file: a buffered
  // read has the last word. At the end of the file it costs one call and caches nothing.
  if (const Status status = read_buffered(window); !status) return std::unexpected(status.error());
  return std::span<const std::byte>(window.data, window.done_bytes);
}

// Whether a buffered read is the cheaper one: all of it cached, or some of it not yet on disk,
// which a direct read would have to write back first. Where the kernel can't say (before 6.5, or
// without the right to know), it is not; direct reads are right in any case.
bool DirectFile::is_cached(const Window& window) const {
  CachestatRange range{window.offset, window.length_bytes};
  Cachestat stat{};
  if (::syscall(cachestat_syscall_number, fd_, &range, &stat, 0U) != 0) return false;
  if (stat.nr_dirty + stat.nr_writeback > 0) return true;
  if (stat.nr_cache == 0) return false;
  if (stat.nr_cache >= pages_between(window.offset, window.end())) return true;
  struct stat file;
  if (::fstat(fd_, &file) != 0) return false;
  const uint64_t end = std::min(window.end(), static_cast<uint64_t>(file.st_size));
  return end <= window.offset || stat.nr_cache >= pages_between(window.offset, end);
}

Status DirectFile::read_direct(Window& window) {
  if (open_direct() != Mode::direct) return {};
  const uint64_t align_mask = alignment_bytes_ - 1;
  uint64_t position = window.offset & ~align_mask;
  const uint64_t end = (window.end() + align_mask) & ~align_mask;
  // A count that is not aligned ends at the end of the file. Going on from there would be EINVAL if
  // the file has grown since.
  while (position < end && (position & align_mask) == 0) {
    const ssize_t count = ::pread(direct_fd_.get(), window.at(position), end - position,
                                  static_cast<off_t>(position));
    if (count == 0) break;
    if (count > 0) {
      position += static_cast<uint64_t>(count);
    } else if (errno == EINVAL) {  // the filesystem can't after all
      mode_.store(Mode::buffered, std::memory_order_release);
      break;
    } else if (errno != EINTR) {
      return last_error();
    }
  }
  if (position > window.offset)
    window.done_bytes = std::min(position - window.offset, window.length_bytes);
  return {};
}

Status DirectFile::read_buffered(Window& window) const {
  while (window.done_bytes < window.length_bytes) {
    const uint64_t position = window.offset + window.done_bytes;
    const ssize_t count =
        ::pread(fd_, window.at(position), window.end() - position, static_cast<off_t>(position));
    if (count == 0) break;
    if (count > 0)
      window.done_bytes += static_cast<uint64_t>(count);
    else if (errno != EINTR)
      return last_error();
  }
  return {};
}

DirectFile::Mode DirectFile::open_direct() {
  if (const Mode known = mode(); known != Mode::untried) return known;
  MutexLock lock(opening_);
  if (const Mode known = mode(); known != Mode::untried) return known;
  const Mode found = try_open_direct();
  mode_.store(found, std::memory_order_release);
  return found;
}

DirectFile::Mode DirectFile::try_open_direct() {
  // A descriptor that was not opened for reading must not be made readable: pread refuses it.
  const int flags = ::fcntl(fd_, F_GETFL);
  if (flags < 0 || (flags & O_ACCMODE) == O_WRONLY) return Mode::buffered;

  if (!budget_.try_claim()) return Mode::untried;
  std::array<char, 32> path = {"/proc/self/fd/"};
  std::to_chars(path.data() + std::strlen(path.data()), path.data() + path.size() - 1, fd_);
  CountedFd fd(budget_, UniqueFd(::open(path.data(),
                                        O_RDONLY | O_DIRECT | O_CLOEXEC | (flags & O_NOATIME))));
  if (!fd) {
    const bool passes = errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EINTR;
    return passes ? Mode::untried : Mode::buffered;
  }

  struct statx stx;
  if (::statx(fd.get(), "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) != 0) return Mode::buffered;
  // Where nobody tells (tmpfs, NFS, kernels before 6.1) the largest that we can serve includes all
  // smaller ones, so trying these would find nothing more. If it is not enough, the first read gets
  // EINVAL.
  uint64_t alignment_bytes = buffer_alignment_bytes;
  if ((stx.stx_mask & STATX_DIOALIGN) != 0) {
    if (stx.stx_dio_offset_align == 0 || stx.stx_dio_mem_align == 0) return Mode::buffered;
    alignment_bytes = std::max(stx.stx_dio_offset_align, stx.stx_dio_mem_align);
  }
  if (!std::has_single_bit(alignment_bytes) || alignment_bytes > buffer_alignment_bytes)
    return Mode::buffered;
  alignment_bytes_ = alignment_bytes;
  direct_fd_ = std::move(fd);
  return Mode::direct;
}

}  // namespace tally
