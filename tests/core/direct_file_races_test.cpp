#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/core/direct_file_fixture.hpp"
#include "tests/temp_folder.hpp"

// Reads by a DirectFile while others write to the file, cut it off and drop it from the page cache,
// so that every read may find it cached, dirty, being written back, or on the device only.

using tally::DirectFile;
using tally::UniqueFd;
using Mode = DirectFile::Mode;
using namespace tally::test;
using namespace std::chrono_literals;

namespace {

constexpr auto duration = 1500ms;
constexpr std::size_t block_bytes = 4096;

/// Runs `work` (given a random source) again and again on a thread of its own until the end of the
/// object.
class Repeated {
 public:
  Repeated(uint64_t seed, std::function<void(std::mt19937_64&)> work)
      : thread_([seed, work = std::move(work)](const std::stop_token& stop) {
          std::mt19937_64 random(seed);
          while (!stop.stop_requested())
            work(random);
        }) {}

 private:
  std::jthread thread_;
};

/// Writes back and drops, as memory pressure would. No assertions: it runs beside the test.
void drop(int fd) {
  ::fdatasync(fd);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/// Reads random pieces for a while; `check` says whether what was read is right, and gets what
/// `before` returned before the read.
template <class Before, class Check>
int count_wrong_reads(DirectFile& file, uint64_t seed, std::size_t size, Before before,
                      Check check) {
  std::mt19937_64 random(seed);
  auto pool = make_pool();
  const auto lease = pool.lease();
  int wrong = 0;
  const auto end = std::chrono::steady_clock::now() + duration;
  while (std::chrono::steady_clock::now() < end) {
    const std::size_t offset = random() % size;
    const std::size_t length = 1 + random() % 60'000;
    const auto seen_before = before();
    const auto result = file.read(offset, length, lease.bytes());
    if (!result || !check(offset, length, *result, seen_before)) ++wrong;
  }
  return wrong;
}

}  // namespace

TEST_CASE("a read beside a writer shows all that was written before it, and nothing else") {
  const uint64_t seed = test_seed();
  INFO("TALLYFS_SEED=" << seed);
  constexpr std::size_t blocks = 64;
  using Versions = std::array<unsigned char, blocks>;
  const TempFolder folder("races");
  const UniqueFd fd = cold_file(folder.path(), Content(blocks * block_bytes, std::byte{1}));
  DirectFile file(fd.get(), plenty());

  // The bytes of a block are the number of its version, from 1 up to 250.
  std::array<std::atomic<unsigned char>, blocks> started;
  std::array<std::atomic<unsigned char>, blocks> finished;
  for (std::size_t i = 0; i < blocks; ++i)
    started[i] = finished[i] = 1;
  const auto versions = [](const auto& of_blocks) {
    Versions now;
    for (std::size_t i = 0; i < blocks; ++i)
      now[i] = of_blocks[i];
    return now;
  };
  const Repeated writer(seed + 1, [&](std::mt19937_64& random) {
    const std::size_t i = random() % blocks;
    const unsigned char version = finished[i];
    if (version == 250) return std::this_thread::sleep_for(1ms);
    std::array<unsigned char, block_bytes> bytes;
    bytes.fill(version + 1);
    started[i] = version + 1;
    if (::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(i * block_bytes)) ==
        block_bytes)
      finished[i] = version + 1;
    std::this_thread::sleep_for(50us);
  });
  const Repeated dropper(seed + 2, [&](std::mt19937_64&) {
    drop(fd.get());
    std::this_thread::sleep_for(1ms);
  });

  const int wrong = count_wrong_reads(
      file, seed, blocks * block_bytes, [&] { return versions(finished); },
      [&](std::size_t offset, std::size_t length, std::span<const std::byte> read,
          const Versions& oldest) {
        const Versions newest = versions(started);
        for (std::size_t k = 0; k < read.size(); ++k) {
          const std::size_t i = (offset + k) / block_bytes;
          const auto version = static_cast<unsigned char>(read[k]);
          if (version < oldest[i] || version > newest[i]) return false;
        }
        return read.size() == std::min(length, blocks * block_bytes - offset);
      });
  CHECK(wrong == 0);
  if (has_direct_io(fd.get())) CHECK(file.mode() == Mode::direct);
}

TEST_CASE("a read beside truncation shows the file's bytes, zeros where it grew, and no others") {
  const uint64_t seed = test_seed();
  INFO("TALLYFS_SEED=" << seed);
  constexpr std::size_t size_max = 200'000;
  Content content(size_max);
  for (std::size_t i = 0; i < size_max; ++i)
    content[i] = static_cast<std::byte>(1 + i % 251);
  const TempFolder folder("races");
  const UniqueFd fd = cold_file(folder.path(), content);
  DirectFile file(fd.get(), plenty());

  std::optional<Repeated> truncater;
  truncater.emplace(seed + 1, [&](std::mt19937_64& random) {
    const std::size_t sizes[] = {0, 777, block_bytes, 50'000, 131'072, size_max - 1};
    const auto size = static_cast<off_t>(sizes[random() % std::size(sizes)]);
    bool done = ::ftruncate(fd.get(), size) == 0;
    if (random() % 2 == 0) done &= ::ftruncate(fd.get(), size_max) == 0;
    const std::size_t begin = random() % size_max;
    done &= ::pwrite(fd.get(), content.data() + begin, size_max - begin,
                     static_cast<off_t>(begin)) == static_cast<ssize_t>(size_max - begin);
    if (!done || random() % 2 == 0) drop(fd.get());
    std::this_thread::sleep_for(200us);
  });

  const int wrong = count_wrong_reads(
      file, seed, size_max + 10'000, [] { return 0; },
      [&](std::size_t offset, std::size_t length, std::span<const std::byte> read, int) {
        if (read.size() > length || (!read.empty() && offset + read.size() > size_max))
          return false;
        for (std::size_t k = 0; k < read.size(); ++k)
          if (read[k] != std::byte{0} && read[k] != content[offset + k]) return false;
        return true;
      });
  CHECK(wrong == 0);
  if (has_direct_io(fd.get())) CHECK(file.mode() == Mode::direct);

  INFO("afterwards it is what it is");
  truncater.reset();
  REQUIRE(::ftruncate(fd.get(), 777) == 0);
  write_at(fd.get(), 0, std::span(content).first(777));
  drop_from_page_cache(fd.get());
  auto pool = make_pool();
  const auto lease = pool.lease();
  CHECK(
      reads_right(file, Content(content.begin(), content.begin() + 777), 100, 5000, lease.bytes()));
}
