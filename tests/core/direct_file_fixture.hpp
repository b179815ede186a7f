#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "core/aligned_buffer_pool.hpp"
#include "core/descriptor_budget.hpp"
#include "core/direct_file.hpp"
#include "core/unique_fd.hpp"

namespace tally::test {

using Content = std::vector<std::byte>;

constexpr std::size_t read_size_max = 1 << 20;

/// TALLYFS_SEED, or a random one.
uint64_t test_seed();

/// A pool of buffers that take the longest read exactly.
AlignedBufferPool make_pool(std::size_t capacity = 1);

/// A budget that no test exhausts.
DescriptorBudget& plenty();

/// A nameless file in `folder`, open for reading and writing.
UniqueFd new_file(const std::string& folder);

void write_at(int fd, std::size_t offset, std::span<const std::byte> bytes);

/// Writes the file back first.
void drop_from_page_cache(int fd);

Content random_content(std::mt19937_64& random, std::size_t size);

/// A nameless file with this content, none of it in the page cache.
UniqueFd cold_file(const std::string& folder, const Content& content);

bool same(std::span<const std::byte> a, std::span<const std::byte> b);

/// Whether read() does what it owes for this content. Catch2 is slow with assertions by the
/// million: one per read.
bool reads_right(DirectFile& file, const Content& content, std::size_t offset, std::size_t length,
                 std::span<std::byte> buffer);

/// How many pages of the first `size` bytes are in the page cache.
std::size_t cached_pages(int fd, std::size_t size);

/// Whether the filesystem says that files like this one have direct I/O; prints why a test skips.
bool has_direct_io(int fd);

}  // namespace tally::test
