#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/mapping.hpp"
#include "core/result.hpp"
#include "core/thread_safety.hpp"
#include "core/units.hpp"

namespace tally {

struct StoredNameTag;
/// A name that a NameArena keeps. Null: none.
using NameRef = PoolIndex<StoredNameTag>;

/// The bytes of names that are in use for a while, by the million.
///
/// Each writer fills blocks of its own, one after the other. A block counts its names and returns
/// to the common chain of free blocks when the last of them is released; names of one directory lie
/// together and are released about together, so that little of a block is ever left over.
///
/// Thread-safe: a Writer belongs to one thread, everything else is for any. Allocates nothing after
/// construction.
class NameArena {
 public:
  /// What names are stored in; also the longest a name may be, less a header.
  static constexpr std::size_t bytes_per_block = 4096;
  /// As far as a 32-bit reference reaches.
  static constexpr std::size_t capacity_max_bytes = (std::size_t{1} << 32) * alignof(uint32_t);

  /// Address space for `capacity_bytes`, at least one block. Throws std::bad_alloc.
  explicit NameArena(std::size_t capacity_bytes);

  /// Stores names on behalf of one thread.
  class Writer {
   public:
    explicit Writer(NameArena& arena) : arena_(arena) {}
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;
    ~Writer();

    /// Keeps a copy of `name` until release(). ENOSPC when the arena is used up, ENAMETOOLONG for
    /// more than a block holds.
    Result<NameRef> store(std::string_view name);

   private:
    Status start_block();

    NameArena& arena_;
    uint32_t block_ = no_block;
    std::size_t used_bytes_ = 0;
  };

  /// The name, NUL-terminated; valid until it is released.
  [[nodiscard]] const char* text(NameRef name) const;

  /// Gives a stored name back. Each once.
  void release(NameRef name);

  /// Blocks that hold names or belong to a writer.
  [[nodiscard]] uint32_t blocks_in_use() const TALLY_EXCLUDES(mutex_);

 private:
  static constexpr uint32_t no_block = UINT32_MAX;
  static constexpr std::size_t header_bytes = 8;

  struct Block {
    std::atomic<uint32_t> holds;  // names in it, and one more while a writer fills it
    uint32_t next_free;
    char bytes[bytes_per_block - header_bytes];
  };
  static_assert(sizeof(Block) == bytes_per_block);

  Result<uint32_t> take_block() TALLY_EXCLUDES(mutex_);
  void drop_hold(uint32_t block) TALLY_EXCLUDES(mutex_);

  ReservedArray<Block> blocks_;
  mutable Mutex mutex_;
  uint32_t first_free_ TALLY_GUARDED_BY(mutex_) = no_block;
  uint32_t fresh_ TALLY_GUARDED_BY(mutex_) = 0;  // blocks from here on were never used
  uint32_t free_count_ TALLY_GUARDED_BY(mutex_) = 0;
};

}  // namespace tally
