#include "core/key_table.hpp"

#define XXH_INLINE_ALL
#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include <xxhash.h>

namespace tally {

namespace {

// The low bits of a hash choose the shard; what is left chooses the bucket.
constexpr int shard_bits = 4;

uint32_t bucket_hash(uint64_t hash) { return static_cast<uint32_t>(hash >> shard_bits); }

}  // namespace

KeyTable::KeyTable(uint32_t capacity) : entries_(std::size_t{capacity} + 1) {
  static_assert(shard_count == std::size_t{1} << shard_bits);
  // Twice the fair share per shard: beyond that, which a good hash does not reach, buckets are no
  // longer split and chains grow.
  const std::size_t heads_per_shard = std::size_t{capacity} / shard_count * 2 + 1024;
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mutex);
    shard.heads = ReservedArray<uint32_t>(heads_per_shard);
  }
}

uint64_t KeyTable::hash_of(const FileKey& key) {
  std::array<std::byte, sizeof key.ino + sizeof key.dev> bytes;
  std::memcpy(bytes.data(), &key.ino, sizeof key.ino);
  std::memcpy(bytes.data() + sizeof key.ino, &key.dev, sizeof key.dev);
  return XXH3_64bits(bytes.data(), bytes.size());
}

bool KeyTable::matches(uint32_t index, const FileKey& key) const {
  return entries_[index].ino == key.ino && entries_[index].dev == key.dev;
}

uint32_t KeyTable::Shard::bucket(uint32_t hash) const {
  // Buckets below bucket_count - level are split already and use one bit more of the hash.
  const uint32_t level = std::bit_floor(bucket_count);
  const uint32_t wide = hash & (2 * level - 1);
  return wide < bucket_count ? wide : hash & (level - 1);
}

uint32_t& KeyTable::Shard::head(uint32_t hash) { return heads[bucket(hash)]; }

uint32_t KeyTable::find(const FileKey& key) const {
  const uint64_t hash = hash_of(key);
  Shard& shard = shards_[hash % shard_count];
  MutexLock lock(shard.mutex);
  uint32_t index = shard.head(bucket_hash(hash));
  while (index != 0 && !matches(index, key))
    index = entries_[index].next;
  return index;
}

uint32_t KeyTable::insert(const FileKey& key, uint32_t index) {
  assert(index != 0 && index < entries_.capacity());
  const uint64_t hash = hash_of(key);
  Shard& shard = shards_[hash % shard_count];
  MutexLock lock(shard.mutex);
  for (uint32_t i = shard.head(bucket_hash(hash)); i != 0; i = entries_[i].next)
    if (matches(i, key)) return i;
  if (++shard.stored > shard.bucket_count) split_bucket(shard);
  uint32_t& head = shard.head(bucket_hash(hash));
  entries_[index] = {.ino = key.ino, .dev = key.dev, .next = head};
  head = index;
  return index;
}

bool KeyTable::erase(const FileKey& key, uint32_t index) {
  const uint64_t hash = hash_of(key);
  Shard& shard = shards_[hash % shard_count];
  MutexLock lock(shard.mutex);
  uint32_t* link = &shard.head(bucket_hash(hash));
  while (*link != 0 && *link != index)
    link = &entries_[*link].next;
  if (*link == 0) return false;
  *link = entries_[index].next;
  --shard.stored;
  return true;
}

void KeyTable::split_bucket(Shard& shard) {
  if (shard.bucket_count == shard.heads.capacity()) return;
  const uint32_t level = std::bit_floor(shard.bucket_count);
  uint32_t moving = std::exchange(shard.heads[shard.bucket_count - level], 0);
  ++shard.bucket_count;
  while (moving != 0) {
    Entry& entry = entries_[moving];
    uint32_t& head = shard.head(bucket_hash(hash_of({.ino = entry.ino, .dev = entry.dev})));
    const uint32_t next = std::exchange(entry.next, head);
    head = moving;
    moving = next;
  }
}

}  // namespace tally
