#include "core/direct_file.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/core/direct_file_fixture.hpp"
#include "tests/skip.hpp"
#include "tests/temp_folder.hpp"

using tally::DirectFile;
using tally::UniqueFd;
using Mode = DirectFile::Mode;
using namespace tally::test;

namespace {

// Where the file systems under test are: the usual test folder, and tmpfs.
std::vector<std::string> folders(const TempFolder& folder) { return {folder.path(), "/dev/shm"}; }

}  // namespace

TEST_CASE("any offset and length of a file of any size reads as pread reads it") {
  const uint64_t seed = test_seed();
  INFO("TALLYFS_SEED=" << seed);
  std::mt19937_64 random(seed);
  auto pool = make_pool();
  const auto lease = pool.lease();
  const TempFolder folder("direct");
  constexpr std::size_t mib = 1 << 20;
  for (const std::string& place : folders(folder)) {
    for (const std::size_t size : {0UL, 1UL, 511UL, 512UL, 513UL, 4095UL, 4096UL, 4097UL, 70'000UL,
                                   mib - 1, mib, mib + 1, 3 * mib + 777}) {
      const Content content = random_content(random, size);
      const UniqueFd fd = cold_file(place, content);
      DirectFile file(fd.get(), plenty());
      for (int i = 0; i < 60; ++i) {
        // Near the end of file, near page boundaries, and anywhere; cold, warm and partly cached.
        const std::size_t offset = i % 3 == 0   ? size - std::min(size, random() % 5000)
                                   : i % 3 == 1 ? random() % (size / 4096 + 1) * 4096 + random() % 3
                                                : random() % (size + 100);
        const std::size_t length = i % 2 == 0 ? random() % 9000 : random() % (read_size_max + 1);
        if (random() % 2 == 0) drop_from_page_cache(fd.get());
        if (random() % 4 == 0) {
          std::array<char, 6000> some;
          REQUIRE(::pread(fd.get(), some.data(), some.size(),
                          static_cast<off_t>(random() % (size + 1))) >= 0);
        }
        CAPTURE(place, size, i, offset, length);
        REQUIRE(reads_right(file, content, offset, length, lease.bytes()));
      }
      REQUIRE(reads_right(file, content, 0, read_size_max, lease.bytes()));
      REQUIRE(reads_right(file, content, size, 0, lease.bytes()));
      REQUIRE(reads_right(file, content, size + 10 * mib, 4096, lease.bytes()));
    }
  }
}

TEST_CASE("holes of a sparse file read as zeros") {
  const TempFolder folder("direct");
  auto pool = make_pool();
  const auto lease = pool.lease();
  for (const std::string& place : folders(folder)) {
    CAPTURE(place);
    Content content(3 << 20);
    std::fill_n(content.begin() + (1 << 20) + 5, 10'000, std::byte{0xa5});
    const UniqueFd fd = new_file(place);
    REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(content.size())) == 0);
    write_at(fd.get(), (1 << 20) + 5, std::span(content).subspan((1 << 20) + 5, 10'000));
    drop_from_page_cache(fd.get());
    DirectFile file(fd.get(), plenty());
    std::ranges::fill(lease.bytes(), std::byte{0xff});
    REQUIRE(reads_right(file, content, 1, read_size_max, lease.bytes()));
    REQUIRE(reads_right(file, content, (1 << 20) - 100, 300'001, lease.bytes()));
    REQUIRE(reads_right(file, content, content.size() - 7, 100, lease.bytes()));
  }
}

TEST_CASE(
    "reads see every write before them, written back or not, while a file grows and shrinks") {
  const uint64_t seed = test_seed();
  INFO("TALLYFS_SEED=" << seed);
  std::mt19937_64 random(seed);
  auto pool = make_pool();
  const auto lease = pool.lease();
  const TempFolder folder("direct");
  for (const std::string& place : folders(folder)) {
    const UniqueFd fd = new_file(place);
    DirectFile file(fd.get(), plenty());
    Content content;
    for (int step = 0; step < 1500; ++step) {
      CAPTURE(place, step);
      const uint64_t what = random() % 10;
      if (what < 3) {
        const std::size_t offset = random() % 300'000;
        const Content piece = random_content(random, 1 + random() % 20'000);
        write_at(fd.get(), offset, piece);
        content.resize(std::max(content.size(), offset + piece.size()));
        std::ranges::copy(piece, content.begin() + static_cast<std::ptrdiff_t>(offset));
      } else if (what == 3 && step % 8 == 0) {
        content.resize(random() % 300'000);
        REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(content.size())) == 0);
      } else if (what == 4 && step % 4 == 0) {
        drop_from_page_cache(fd.get());
      } else {
        const std::size_t offset = random() % 320'000;
        const std::size_t length = random() % 100'000;
        CAPTURE(offset, length, content.size());
        REQUIRE(reads_right(file, content, offset, length, lease.bytes()));
      }
    }
  }
}

TEST_CASE("a cold read goes to the device and leaves nothing in the page cache") {
  std::mt19937_64 random(1);
  const TempFolder folder("direct");
  const Content content = random_content(random, 2 << 20);
  const UniqueFd fd = cold_file(folder.path(), content);
  if (!has_direct_io(fd.get())) return;
  REQUIRE(cached_pages(fd.get(), content.size()) == 0);
  auto pool = make_pool();
  const auto lease = pool.lease();
  DirectFile file(fd.get(), plenty());
  REQUIRE(file.mode() == Mode::untried);
  REQUIRE(reads_right(file, content, 12'345, 1'000'000, lease.bytes()));
  REQUIRE(file.mode() == Mode::direct);
  REQUIRE(reads_right(file, content, content.size() - 100, 5000, lease.bytes()));
  REQUIRE(cached_pages(fd.get(), content.size()) == 0);
}

TEST_CASE("what is cached or dirty is read from the page cache, without a second descriptor") {
  std::mt19937_64 random(1);
  const TempFolder folder("direct");
  Content content = random_content(random, 100'000);
  const UniqueFd fd = new_file(folder.path());
  write_at(fd.get(), 0, content);
  std::array<uint64_t, 2> range = {0, 1};
  std::array<uint64_t, 5> cachestat = {};
  if (::syscall(451, fd.get(), &range, &cachestat, 0U) != 0) {
    return tally::test::skip("no cachestat(2) here: " + std::string(std::strerror(errno)));
  }
  auto pool = make_pool();
  const auto lease = pool.lease();
  DirectFile file(fd.get(), plenty());
  REQUIRE(reads_right(file, content, 1, 5000, lease.bytes()));
  REQUIRE(::fdatasync(fd.get()) == 0);  // cached, no longer dirty
  REQUIRE(reads_right(file, content, 0, 100'000, lease.bytes()));
  REQUIRE(reads_right(file, content, 90'000, read_size_max, lease.bytes()));
  drop_from_page_cache(fd.get());
  write_at(fd.get(), 50'000, std::span(content).first(100));  // one dirty page among cold ones
  std::copy_n(content.begin(), 100, content.begin() + 50'000);
  REQUIRE(reads_right(file, content, 10'000, 80'000, lease.bytes()));
  REQUIRE(file.mode() == Mode::untried);
}

TEST_CASE("a file whose filesystem refuses O_DIRECT is read buffered") {
  auto pool = make_pool();
  const auto lease = pool.lease();
  const UniqueFd fd(::open("/proc/version", O_RDONLY | O_CLOEXEC));
  REQUIRE(fd);
  Content content(4096);
  content.resize(static_cast<std::size_t>(::pread(fd.get(), content.data(), 4096, 0)));
  REQUIRE(content.size() > 10);
  DirectFile file(fd.get(), plenty());
  REQUIRE(reads_right(file, content, 0, 4096, lease.bytes()));
  REQUIRE(reads_right(file, content, 7, 3, lease.bytes()));
  REQUIRE(file.mode() == Mode::buffered);
}

TEST_CASE("without a descriptor for direct I/O reads are buffered until there is one again") {
  std::mt19937_64 random(1);
  const TempFolder folder("direct");
  const Content content = random_content(random, 50'000);
  const UniqueFd fd = cold_file(folder.path(), content);
  if (!has_direct_io(fd.get())) return;
  auto pool = make_pool();
  const auto lease = pool.lease();
  DirectFile file(fd.get(), plenty());
  rlimit before;
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit none = before;
  none.rlim_cur = 0;  // open descriptors stay, new ones are EMFILE
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  const bool right = reads_right(file, content, 10, 40'000, lease.bytes());
  const Mode mode = file.mode();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(right);
  REQUIRE(mode == Mode::untried);

  drop_from_page_cache(fd.get());
  REQUIRE(reads_right(file, content, 10, 40'000, lease.bytes()));
  REQUIRE(file.mode() == Mode::direct);
}

TEST_CASE("files share a budget of second descriptors; who has none reads buffered meanwhile") {
  std::mt19937_64 random(1);
  const TempFolder folder("direct");
  const Content content = random_content(random, 50'000);
  const UniqueFd one_fd = cold_file(folder.path(), content);
  const UniqueFd other_fd = cold_file(folder.path(), content);
  if (!has_direct_io(one_fd.get())) return;
  auto pool = make_pool();
  const auto lease = pool.lease();
  tally::DescriptorBudget budget(1);
  std::optional<DirectFile> one(std::in_place, one_fd.get(), budget);
  DirectFile other(other_fd.get(), budget);
  REQUIRE(reads_right(*one, content, 10, 40'000, lease.bytes()));
  REQUIRE(one->mode() == Mode::direct);
  REQUIRE(reads_right(other, content, 10, 40'000, lease.bytes()));
  REQUIRE(other.mode() == Mode::untried);
  REQUIRE(budget.claimed() == 1);

  one.reset();
  REQUIRE(budget.claimed() == 0);
  drop_from_page_cache(other_fd.get());
  REQUIRE(reads_right(other, content, 10, 40'000, lease.bytes()));
  REQUIRE(other.mode() == Mode::direct);
  REQUIRE(budget.claimed() == 1);
}

TEST_CASE("a file that can't be read directly keeps no claim on the budget") {
  auto pool = make_pool();
  const auto lease = pool.lease();
  const UniqueFd fd(::open("/proc/version", O_RDONLY | O_CLOEXEC));
  tally::DescriptorBudget budget(1);
  DirectFile file(fd.get(), budget);
  REQUIRE(file.read(0, 100, lease.bytes()));
  REQUIRE(file.mode() == Mode::buffered);
  REQUIRE(budget.claimed() == 0);
}

namespace {

// The descriptor that a DirectFile of `fd` opened for itself.
int direct_twin_of(int fd) {
  struct stat wanted;
  REQUIRE(::fstat(fd, &wanted) == 0);
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int other = std::stoi(entry.path().filename());
    struct stat stat;
    if (::fstat(other, &stat) == 0 && stat.st_ino == wanted.st_ino &&
        stat.st_dev == wanted.st_dev && (::fcntl(other, F_GETFL) & O_DIRECT) != 0)
      return other;
  }
  return -1;
}

}  // namespace

TEST_CASE("a file whose direct reads turn out to be EINVAL is read buffered from then on") {
  std::mt19937_64 random(1);
  const TempFolder folder("direct");
  const Content content = random_content(random, 50'000);
  const UniqueFd fd = cold_file(folder.path(), content);
  if (!has_direct_io(fd.get())) return;
  auto pool = make_pool();
  const auto lease = pool.lease();
  DirectFile file(fd.get(), plenty());
  REQUIRE(reads_right(file, content, 0, 1, lease.bytes()));
  REQUIRE(file.mode() == Mode::direct);
  // Something that answers every pread with EINVAL takes the place of the direct descriptor.
  const UniqueFd unreadable(::open("/proc/self/clear_refs", O_RDONLY | O_CLOEXEC));
  REQUIRE(::pread(unreadable.get(), lease.bytes().data(), 4096, 0) == -1);
  REQUIRE(errno == EINVAL);
  const int twin = direct_twin_of(fd.get());
  REQUIRE(::dup3(unreadable.get(), twin, O_CLOEXEC) == twin);
  REQUIRE(reads_right(file, content, 5, 30'000, lease.bytes()));
  REQUIRE(file.mode() == Mode::buffered);
  REQUIRE(reads_right(file, content, 49'000, 30'000, lease.bytes()));
}

TEST_CASE("what can't be read is an error, and a refused buffer is EINVAL") {
  const TempFolder folder("direct");
  auto pool = make_pool();
  const auto lease = pool.lease();
  const auto buffer = lease.bytes();
  const UniqueFd fd = cold_file(folder.path(), Content(10'000));
  DirectFile file(fd.get(), plenty());
  REQUIRE(file.read(0, read_size_max + 1, buffer).error().value == EINVAL);
  REQUIRE(file.read(0, 1, buffer.first(8192)).error().value == EINVAL);
  REQUIRE(file.read(0, 1, buffer.first(100)).error().value == EINVAL);
  REQUIRE(file.read(0, 1, buffer.subspan(512)).error().value == EINVAL);
  REQUIRE(file.read(uint64_t{1} << 63, 1, buffer).error().value == EINVAL);
  REQUIRE(file.read(INT64_MAX, 1, buffer).error().value == EINVAL);

  const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
  const UniqueFd write_only(::open(link.c_str(), O_WRONLY | O_CLOEXEC));
  DirectFile unreadable(write_only.get(), plenty());
  REQUIRE(unreadable.read(0, 100, buffer).error().value == EBADF);
  const UniqueFd directory(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DirectFile no_file(directory.get(), plenty());
  REQUIRE(no_file.read(0, 100, buffer).error().value == EISDIR);
}

TEST_CASE("threads share a file and wait for the buffers of a pool that is too small for them") {
  const uint64_t seed = test_seed();
  INFO("TALLYFS_SEED=" << seed);
  std::mt19937_64 random(seed);
  const TempFolder folder("direct");
  const Content content = random_content(random, 1'500'000);
  auto pool = make_pool(2);
  for (int round = 0; round < 20; ++round) {  // each a new race for the second descriptor
    const UniqueFd fd = cold_file(folder.path(), content);
    DirectFile file(fd.get(), plenty());
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 6; ++thread) {
      threads.emplace_back([&, thread_seed = random()] {
        std::mt19937_64 thread_random(thread_seed);
        for (int i = 0; i < 10; ++i) {
          const auto lease = pool.lease();
          const std::size_t offset = thread_random() % content.size();
          const std::size_t length = thread_random() % 100'000;
          const auto result = file.read(offset, length, lease.bytes());
          const auto expected = std::span(content).subspan(
              offset, std::min<std::size_t>(length, content.size() - offset));
          if (!result || !same(*result, expected)) ++wrong;
        }
      });
    }
    for (auto& thread : threads)
      thread.join();
    REQUIRE(wrong == 0);
  }
  REQUIRE(pool.leased_count() == 0);
  REQUIRE(pool.leased_count_max() == 2);
}
