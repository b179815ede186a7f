#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <utility>

#include "core/descriptor_budget.hpp"
#include "core/direct_file.hpp"
#include "core/thread_safety.hpp"
#include "fs/inode_table.hpp"

namespace tally::fs {

/// A regular file that is open through the mount; its address is the FUSE file handle.
struct OpenFile {
  OpenFile(InodeRef inode_ref, CountedFd lower_fd, DescriptorBudget& direct_budget)
      : inode(std::move(inode_ref)), fd(std::move(lower_fd)), direct(fd.get(), direct_budget) {}

  InodeRef inode;
  CountedFd fd;       ///< the lower file, without O_DIRECT and O_APPEND
  DirectFile direct;  ///< reads from it past the page cache
  std::atomic<bool> written = false;
};

/// A directory that is open through the mount, with the entries read ahead of the kernel.
struct OpenDirectory {
  static constexpr std::size_t entries_size_bytes = 32 << 10;

  OpenDirectory(InodeRef inode_ref, CountedFd lower_fd)
      : inode(std::move(inode_ref)), fd(std::move(lower_fd)) {}

  InodeRef inode;
  CountedFd fd;

  Mutex mutex;                                 ///< a leaf but for inode locks, taken after it
  off_t position TALLY_GUARDED_BY(mutex) = 0;  ///< the cookie of the entry at `begin`
  std::size_t begin TALLY_GUARDED_BY(mutex) = 0;
  std::size_t end TALLY_GUARDED_BY(mutex) = 0;
  alignas(8) std::array<char, entries_size_bytes> entries TALLY_GUARDED_BY(mutex);
};

}  // namespace tally::fs
