#include "core/name_arena.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace tally {

namespace {

constexpr std::size_t unit_bytes = alignof(uint32_t);

constexpr std::size_t rounded_to_unit(std::size_t size_bytes) {
  return (size_bytes + unit_bytes - 1) / unit_bytes * unit_bytes;
}

}  // namespace

NameArena::NameArena(std::size_t capacity_bytes)
    : blocks_(std::clamp(capacity_bytes, bytes_per_block, capacity_max_bytes) / bytes_per_block) {}

// A reference is the distance from the start of the arena in units of 4 bytes. It is never 0: a
// block starts with its header.
const char* NameArena::text(NameRef name) const {
  assert(name);
  const std::size_t offset_bytes = std::size_t{name.value} * unit_bytes;
  return blocks_[offset_bytes / bytes_per_block].bytes +
         (offset_bytes % bytes_per_block - header_bytes);
}

void NameArena::release(NameRef name) {
  assert(name);
  drop_hold(static_cast<uint32_t>(std::size_t{name.value} * unit_bytes / bytes_per_block));
}

uint32_t NameArena::blocks_in_use() const {
  MutexLock lock(mutex_);
  return fresh_ - free_count_;
}

Result<uint32_t> NameArena::take_block() {
  MutexLock lock(mutex_);
  uint32_t block = first_free_;
  if (block != no_block) {
    first_free_ = blocks_[block].next_free;
    --free_count_;
  } else {
    if (fresh_ == blocks_.capacity()) return failure(ENOSPC);
    block = fresh_++;
  }
  blocks_[block].holds.store(1, std::memory_order_relaxed);
  return block;
}

void NameArena::drop_hold(uint32_t block) {
  const uint32_t before = blocks_[block].holds.fetch_sub(1, std::memory_order_acq_rel);
  assert(before != 0);
  if (before != 1) return;
  MutexLock lock(mutex_);
  blocks_[block].next_free = first_free_;
  first_free_ = block;
  ++free_count_;
}

NameArena::Writer::~Writer() {
  if (block_ != no_block) arena_.drop_hold(block_);
}

Status NameArena::Writer::start_block() {
  if (block_ != no_block) {
    // Only this writer adds names, so a block that has none left is free to be filled again.
    if (arena_.blocks_[block_].holds.load(std::memory_order_acquire) == 1) {
      used_bytes_ = 0;
      return {};
    }
    arena_.drop_hold(block_);
    block_ = no_block;
  }
  const auto taken = arena_.take_block();
  if (!taken) return std::unexpected(taken.error());
  block_ = *taken;
  used_bytes_ = 0;
  return {};
}

Result<NameRef> NameArena::Writer::store(std::string_view name) {
  const std::size_t needed_bytes = rounded_to_unit(name.size() + 1);
  if (needed_bytes > sizeof(Block::bytes)) return failure(ENAMETOOLONG);
  if (block_ == no_block || used_bytes_ + needed_bytes > sizeof(Block::bytes)) {
    if (const Status started = start_block(); !started) return std::unexpected(started.error());
  }
  Block& block = arena_.blocks_[block_];
  char* place = block.bytes + used_bytes_;
  std::memcpy(place, name.data(), name.size());
  place[name.size()] = '\0';
  block.holds.fetch_add(1, std::memory_order_relaxed);
  const std::size_t offset_bytes = block_ * bytes_per_block + header_bytes + used_bytes_;
  used_bytes_ += needed_bytes;
  return NameRef{static_cast<uint32_t>(offset_bytes / unit_bytes)};
}

}  // namespace tally
