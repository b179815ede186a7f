#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/file_stat.hpp"
#include "core/mapping.hpp"
#include "core/thread_safety.hpp"

namespace tally {

/// Finds pool indices by (dev, ino).
///
/// A hash table (XXH3) that grows by linear hashing (Litwin, "Linear hashing", VLDB 1980): every
/// insertion beyond the current number of buckets splits one bucket, so that there is never a pause
/// for a whole rehash and memory is touched in proportion to what is stored, not to the capacity.
/// Split into shards, each with its own lock, so that scan workers seldom meet.
///
/// Thread-safe. Allocates nothing after construction.
class KeyTable {
 public:
  // What a stored index takes: an entry, and one bucket that is used of two that are reserved.
  static constexpr std::size_t entry_bytes = 16;
  static constexpr std::size_t bucket_bytes = sizeof(uint32_t);

  /// Room for the indices 1 … capacity. Throws std::bad_alloc.
  explicit KeyTable(uint32_t capacity);

  /// The index stored under `key`, 0 if there is none.
  [[nodiscard]] uint32_t find(const FileKey& key) const;

  /// Stores `index` (not in the table yet) under `key` unless that key is taken. Returns the index
  /// that is stored under it now.
  uint32_t insert(const FileKey& key, uint32_t index);

  /// Takes `index` out; false if it is not stored under `key`.
  bool erase(const FileKey& key, uint32_t index);

  /// The key under which `index` was last stored. Only for an index that is in the table.
  [[nodiscard]] FileKey key_of(uint32_t index) const {
    return {.ino = entries_[index].ino, .dev = entries_[index].dev};
  }

 private:
  struct Entry {
    uint64_t ino;
    uint32_t dev;
    uint32_t next;
  };

  static_assert(sizeof(Entry) == entry_bytes);

  struct alignas(64) Shard {
    mutable Mutex mutex;
    ReservedArray<uint32_t> heads TALLY_GUARDED_BY(mutex);
    uint32_t bucket_count TALLY_GUARDED_BY(mutex) = 1;
    uint32_t stored TALLY_GUARDED_BY(mutex) = 0;

    uint32_t& head(uint32_t hash) TALLY_REQUIRES(mutex);
    [[nodiscard]] uint32_t bucket(uint32_t hash) const TALLY_REQUIRES(mutex);
  };

  static constexpr std::size_t shard_count = 16;

  static uint64_t hash_of(const FileKey& key);
  [[nodiscard]] bool matches(uint32_t index, const FileKey& key) const;
  void split_bucket(Shard& shard) TALLY_REQUIRES(shard.mutex);

  ReservedArray<Entry> entries_;  // by index; an entry belongs to the shard of its key
  mutable std::array<Shard, shard_count> shards_;
};

}  // namespace tally
