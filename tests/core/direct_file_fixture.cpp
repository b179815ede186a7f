#include "tests/core/direct_file_fixture.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <catch2/catch.hpp>

#include "tests/skip.hpp"

namespace tally::test {

uint64_t test_seed() {
  const char* given = std::getenv("TALLYFS_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

AlignedBufferPool make_pool(std::size_t capacity) {
  return *AlignedBufferPool::create(DirectFile::buffer_alignment_bytes,
                                    read_size_max + DirectFile::buffer_slack_bytes, capacity);
}

DescriptorBudget& plenty() {
  static DescriptorBudget budget(UINT32_MAX);
  return budget;
}

UniqueFd new_file(const std::string& folder) {
  std::string name = folder + "/tallyfs-direct-XXXXXX";
  UniqueFd fd(::mkostemp(name.data(), O_CLOEXEC));
  REQUIRE(fd);
  REQUIRE(::unlink(name.c_str()) == 0);
  return fd;
}

void write_at(int fd, std::size_t offset, std::span<const std::byte> bytes) {
  REQUIRE(::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
          static_cast<ssize_t>(bytes.size()));
}

void drop_from_page_cache(int fd) {
  REQUIRE(::fdatasync(fd) == 0);
  REQUIRE(::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
}

Content random_content(std::mt19937_64& random, std::size_t size) {
  Content content(size);
  for (auto& byte : content)
    byte = static_cast<std::byte>(random());
  return content;
}

UniqueFd cold_file(const std::string& folder, const Content& content) {
  UniqueFd fd = new_file(folder);
  write_at(fd.get(), 0, content);
  drop_from_page_cache(fd.get());
  return fd;
}

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

bool reads_right(DirectFile& file, const Content& content, std::size_t offset, std::size_t length,
                 std::span<std::byte> buffer) {
  const auto part = buffer.first(length + DirectFile::buffer_slack_bytes);
  const auto beyond = buffer.subspan(part.size());
  const std::byte canary = beyond.empty() ? std::byte{} : beyond[0];
  const auto result = file.read(offset, length, part);
  const std::size_t begin = std::min(offset, content.size());
  const std::size_t end = std::min(offset + length, content.size());
  return result && same(*result, std::span(content).subspan(begin, end - begin)) &&
         (beyond.empty() || beyond[0] == canary);
}

std::size_t cached_pages(int fd, std::size_t size) {
  void* map = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  REQUIRE(map != MAP_FAILED);
  std::vector<unsigned char> pages((size + 4095) / 4096);
  REQUIRE(::mincore(map, size, pages.data()) == 0);
  ::munmap(map, size);
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return page & 1; }));
}

bool has_direct_io(int fd) {
  struct statx stx;
  REQUIRE(::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0);
  if ((stx.stx_mask & STATX_DIOALIGN) != 0 && stx.stx_dio_offset_align != 0) return true;
  skip("no direct I/O known on the filesystem of the test folder");
  return false;
}

}  // namespace tally::test
