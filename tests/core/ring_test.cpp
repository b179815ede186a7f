#include "core/ring.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "core/file_stat.hpp"
#include "core/unique_fd.hpp"
#include "tests/skip.hpp"
#include "tests/temp_folder.hpp"

using tally::Ring;
using tally::UniqueFd;

namespace {

// The ring, or nothing where this machine has none; the reason is printed.
std::optional<Ring> ring_or_skip(unsigned entries) {
  auto ring = Ring::create(entries);
  if (ring) return std::move(*ring);
  tally::test::skip("no io_uring here: " + ring.error().message());
  return std::nullopt;
}

UniqueFd open_folder(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(fd);
  return fd;
}

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

int count_open_descriptors() {
  DIR* dir = ::opendir("/proc/self/fd");
  REQUIRE(dir != nullptr);
  int count = 0;
  while (::readdir(dir) != nullptr)
    ++count;
  ::closedir(dir);
  return count;
}

// Opening a FIFO for reading blocks until a writer comes; O_CREAT makes io_uring do it on a worker
// thread at once, without a first attempt that would succeed with O_NONBLOCK
// (io_uring/openclose.c).
constexpr int blocking_fifo_flags = O_RDONLY | O_CREAT | O_CLOEXEC;

constexpr int open_flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

}  // namespace

TEST_CASE("a ring opens a batch of directories and says which slot each descriptor belongs to") {
  auto ring = ring_or_skip(32);
  if (!ring) return;
  const tally::test::TempFolder folder("ring");
  const UniqueFd parent = open_folder(folder.path());
  std::vector<std::string> names;
  names.reserve(32);  // the queued pointers must stay
  for (uint32_t slot = 0; slot < 32; ++slot) {
    names.push_back("d" + std::to_string(slot));
    // Slot 7 does not exist and slot 9 is no directory.
    if (slot == 9) {
      std::ofstream(folder.path() + "/" + names.back()) << "file";
    } else if (slot != 7) {
      REQUIRE(::mkdirat(parent.get(), names.back().c_str(), 0700) == 0);
    }
    REQUIRE(ring->queue_open(parent.get(), names.back().c_str(), open_flags, slot));
  }
  REQUIRE(ring->submit_and_wait(32));

  std::set<uint32_t> seen;
  while (const auto done = ring->next_completion()) {
    REQUIRE(seen.insert(done->slot).second);
    if (done->slot == 7) {
      REQUIRE(done->result == -ENOENT);
    } else if (done->slot == 9) {
      REQUIRE(done->result == -ENOTDIR);
    } else {
      REQUIRE(done->result >= 0);
      const UniqueFd fd(done->result);
      const auto by_name = tally::stat_at(parent.get(), names[done->slot].c_str());
      REQUIRE(tally::stat_fd(fd.get())->key == by_name->key);
    }
  }
  REQUIRE(seen.size() == 32);
  REQUIRE(ring->outstanding() == 0);
}

TEST_CASE("queueing fails while capacity operations are outstanding and works again afterwards") {
  auto ring = ring_or_skip(4);
  if (!ring) return;
  REQUIRE(ring->capacity() == 4);
  const tally::test::TempFolder folder("ring");
  const UniqueFd parent = open_folder(folder.path());
  for (uint32_t slot = 0; slot < 4; ++slot)
    REQUIRE(ring->queue_open(parent.get(), ".", open_flags, slot));
  REQUIRE_FALSE(ring->queue_open(parent.get(), ".", open_flags, 4));
  REQUIRE_FALSE(ring->queue_close(parent.get()));
  REQUIRE(is_open(parent.get()));

  // Submitting alone frees no place: completions that nobody took must not overflow.
  REQUIRE(ring->submit_and_wait(4));
  REQUIRE_FALSE(ring->queue_open(parent.get(), ".", open_flags, 4));
  const auto done = ring->next_completion();
  REQUIRE(done);
  REQUIRE(ring->queue_close(done->result));
  REQUIRE(ring->submit_and_wait(0));
}

TEST_CASE("a descriptor given to queue_close is closed by the next submission") {
  auto ring = ring_or_skip(8);
  if (!ring) return;
  const tally::test::TempFolder folder("ring");
  // Opens and closes share batches for many rounds, as the scanner uses them.
  const UniqueFd parent = open_folder(folder.path());
  const int before = count_open_descriptors();
  std::vector<int> opened;
  for (int round = 0; round < 1000; ++round) {
    for (const int fd : opened)
      REQUIRE(ring->queue_close(fd));
    for (uint32_t slot = 0; slot < 4; ++slot)
      REQUIRE(ring->queue_open(parent.get(), ".", open_flags, slot));
    REQUIRE(ring->submit_and_wait(4));
    opened.clear();
    while (const auto done = ring->next_completion()) {
      REQUIRE(done->result >= 0);
      opened.push_back(done->result);
    }
    REQUIRE(opened.size() == 4);
  }
  for (const int fd : opened)
    REQUIRE(ring->queue_close(fd));
  REQUIRE(ring->submit_and_wait(1));
  REQUIRE_FALSE(ring->next_completion());
  REQUIRE(ring->outstanding() == 0);
  REQUIRE(count_open_descriptors() == before);
}

TEST_CASE("a ring that dies leaks no descriptor, whatever state its operations are in") {
  const tally::test::TempFolder folder("ring");
  const UniqueFd parent = open_folder(folder.path());
  const int before = count_open_descriptors();
  {
    auto ring = ring_or_skip(8);
    if (!ring) return;
    for (uint32_t slot = 0; slot < 3; ++slot)
      REQUIRE(ring->queue_open(parent.get(), ".", open_flags, slot));
    REQUIRE(ring->submit_and_wait(3));  // done, but the completions are never taken
    REQUIRE(ring->queue_close(::dup(parent.get())));
    {
      const std::string name_that_dies_first(300, 'x');
      REQUIRE(ring->queue_open(parent.get(), name_that_dies_first.c_str(), open_flags, 3));
    }
    // Moving takes everything along and leaves the source harmless.
    Ring moved(std::move(*ring));
    REQUIRE(ring->outstanding() == 0);
    REQUIRE(moved.outstanding() == 5);
  }
  REQUIRE(count_open_descriptors() == before);
}

TEST_CASE("a ring that dies waits for an open in flight and closes what it brings") {
  const tally::test::TempFolder folder("ring");
  const std::string fifo = folder.path() + "/fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  const int before = count_open_descriptors();
  std::optional<Ring> ring = ring_or_skip(4);
  if (!ring) return;
  REQUIRE(ring->queue_open(AT_FDCWD, fifo.c_str(), blocking_fifo_flags, 1));
  REQUIRE(ring->submit_and_wait(0));
  REQUIRE_FALSE(ring->next_completion());
  std::thread writer([&] { UniqueFd fd(::open(fifo.c_str(), O_WRONLY | O_CLOEXEC)); });
  ring.reset();
  writer.join();
  REQUIRE(count_open_descriptors() == before);
}

namespace {

// The value after `label` in /proc/<tid>/status.
std::string thread_status(pid_t tid, const std::string& label) {
  std::ifstream status("/proc/self/task/" + std::to_string(tid) + "/status");
  for (std::string word; status >> word;)
    if (word == label && status >> word) return word;
  return "";
}

bool is_asleep(pid_t tid) { return thread_status(tid, "State:") == "S"; }

bool has_pending_signal(pid_t tid) {
  return thread_status(tid, "SigPnd:").find_first_not_of('0') != std::string::npos;
}

}  // namespace

TEST_CASE("signals don't end a wait, and the thread that first submits owns the ring") {
  std::optional<Ring> ring = ring_or_skip(4);  // created here, used by the thread below
  if (!ring) return;
  const tally::test::TempFolder folder("ring");
  const std::string fifo = folder.path() + "/fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  struct sigaction action = {};
  struct sigaction previous = {};
  action.sa_handler = [](int) {};  // no SA_RESTART
  REQUIRE(::sigaction(SIGUSR1, &action, &previous) == 0);

  std::atomic<pid_t> tid = 0;
  std::atomic<bool> returned = false;
  bool succeeded = false;
  std::optional<Ring::Completion> done;
  std::thread waiter([&] {
    tid = ::gettid();
    if (ring->queue_open(AT_FDCWD, fifo.c_str(), blocking_fifo_flags, 42)) {
      succeeded = ring->submit_and_wait(1).has_value();
      done = ring->next_completion();
    }
    returned = true;
    ring.reset();
  });
  while (tid == 0)
    std::this_thread::yield();
  for (int signals = 0; signals < 5; ++signals) {
    while (!is_asleep(tid) && !returned)
      std::this_thread::yield();
    if (!returned) ::pthread_kill(waiter.native_handle(), SIGUSR1);
    while (has_pending_signal(tid) && !returned)
      std::this_thread::yield();
  }
  CHECK_FALSE(returned);
  UniqueFd writer(::open(fifo.c_str(), O_WRONLY | O_CLOEXEC));
  waiter.join();
  ::sigaction(SIGUSR1, &previous, nullptr);
  REQUIRE(succeeded);
  REQUIRE(done);
  REQUIRE(done->slot == 42);
  REQUIRE(done->result >= 0);
  const UniqueFd reader(done->result);
}

TEST_CASE("what could not be submitted stays queued, and the next submission takes it along") {
  auto ring = ring_or_skip(8);
  if (!ring) return;
  const tally::test::TempFolder folder("ring");
  const UniqueFd parent = open_folder(folder.path());
  const int before = count_open_descriptors();
  REQUIRE(ring->queue_close(::dup(parent.get())));
  REQUIRE(ring->queue_open(parent.get(), ".", open_flags, 5));
  Ring::submit_error_for_tests = ENOMEM;
  const auto failed = ring->submit_and_wait(1);
  Ring::submit_error_for_tests = 0;
  REQUIRE(failed.error().value == ENOMEM);
  REQUIRE(ring->outstanding() == 2);
  REQUIRE_FALSE(ring->next_completion());
  REQUIRE(ring->submit_and_wait(1));
  const auto done = ring->next_completion();
  REQUIRE(done);
  CHECK(done->slot == 5);
  ::close(done->result);
  CHECK(count_open_descriptors() == before);
}

TEST_CASE("creating a ring fails with the errno that a test asks for, or for a senseless size") {
  Ring::create_error_for_tests = EPERM;
  const auto refused = Ring::create(8);
  Ring::create_error_for_tests = 0;
  REQUIRE(refused.error().value == EPERM);
  if (ring_or_skip(8)) REQUIRE(Ring::create(0).error().value == EINVAL);
}
