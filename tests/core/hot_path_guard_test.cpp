#include "core/hot_path_guard.hpp"

#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include <catch2/catch.hpp>

namespace {

/// Keeps the compiler from removing an allocation that nothing reads.
template <class T>
T* keep(T* block) {
  asm volatile("" : : "g"(block) : "memory");
  return block;
}

void allocate() { std::free(keep(std::malloc(40))); }

}  // namespace

#ifdef TALLYFS_HOT_PATH_GUARD

namespace {

struct Ending {
  bool aborted;
  std::string stderr_text;
};

/// Runs `body` in a child process and tells how that ended.
template <class Body>
Ending run_in_child(Body body) {
  int pipe_fds[2];
  REQUIRE(::pipe(pipe_fds) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(pipe_fds[1], STDERR_FILENO);
    std::signal(SIGABRT, SIG_DFL);  // the test framework's handler would report the abort
    body();
    ::_exit(0);
  }
  ::close(pipe_fds[1]);
  Ending ending{};
  char chunk[256];
  for (ssize_t n; (n = ::read(pipe_fds[0], chunk, sizeof chunk)) > 0;)
    ending.stderr_text.append(chunk, static_cast<std::size_t>(n));
  ::close(pipe_fds[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  ending.aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  const bool exited_cleanly = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  REQUIRE(ending.aborted != exited_cleanly);
  return ending;
}

/// Expects that `body`, which opens its own section, aborts with `complaint`.
template <class Body>
void require_abort(const std::string& complaint, Body body) {
  const Ending ending = run_in_child(body);
  CHECK(ending.aborted);
  CHECK(ending.stderr_text == "ALLOCATION IN HOT PATH: " + complaint + "\n");
}

template <class Body>
void require_silence(Body body) {
  const Ending ending = run_in_child(body);
  CHECK_FALSE(ending.aborted);
  CHECK(ending.stderr_text == "");
}

struct alignas(64) Overaligned {
  char bytes[128];
};

}  // namespace

TEST_CASE("every allocating operation inside a hot path aborts and is named with its size") {
  const auto in_section = [](auto operation) {
    return [operation] {
      void* existing = keep(std::malloc(16));
      TALLY_HOT_PATH("section");
      operation(existing);
    };
  };
  require_abort("malloc of 40 bytes in section", in_section([](void*) { keep(std::malloc(40)); }));
  require_abort("calloc of 35 bytes in section",
                in_section([](void*) { keep(std::calloc(5, 7)); }));
  require_abort("realloc of 41 bytes in section",
                in_section([](void* block) { keep(std::realloc(block, 41)); }));
  require_abort("reallocarray of 33 bytes in section",
                in_section([](void* block) { keep(::reallocarray(block, 3, 11)); }));
  require_abort("aligned_alloc of 128 bytes in section",
                in_section([](void*) { keep(std::aligned_alloc(64, 128)); }));
  require_abort("posix_memalign of 42 bytes in section", in_section([](void* block) {
                  if (::posix_memalign(&block, 64, 42) == 0) keep(block);
                }));
  require_abort("memalign of 43 bytes in section",
                in_section([](void*) { keep(::memalign(64, 43)); }));
  require_abort("valloc of 44 bytes in section", in_section([](void*) { keep(::valloc(44)); }));
  require_abort("pvalloc of 45 bytes in section", in_section([](void*) { keep(::pvalloc(45)); }));
}

TEST_CASE("operator new inside a hot path aborts in each of its forms") {
  require_abort("malloc of 8 bytes in section", [] {
    TALLY_HOT_PATH("section");
    keep(new long);
  });
  require_abort("malloc of 24 bytes in section", [] {
    TALLY_HOT_PATH("section");
    keep(new char[24]);
  });
  require_abort("malloc of 8 bytes in section", [] {
    TALLY_HOT_PATH("section");
    keep(new (std::nothrow) long);
  });
  require_abort("aligned_alloc of 128 bytes in section", [] {
    TALLY_HOT_PATH("section");
    keep(new Overaligned);
  });
}

TEST_CASE("an allocation by the C and C++ libraries inside a hot path aborts") {
  require_abort("malloc of 6 bytes in section", [] {
    TALLY_HOT_PATH("section");
    keep(::strdup(keep("hello")));
  });
  require_abort("malloc of 101 bytes in section", [] {
    TALLY_HOT_PATH("section");
    std::string text(100, 'x');
    keep(text.data());
  });
}

TEST_CASE("an overflowing element count is reported as the largest size") {
  require_abort("calloc of 18446744073709551615 bytes in section", [] {
    volatile std::size_t huge = SIZE_MAX / 2;
    TALLY_HOT_PATH("section");
    keep(std::calloc(huge, 3));
  });
}

TEST_CASE("nested hot paths are named from the outermost in") {
  require_abort("malloc of 40 bytes in outer > middle > inner", [] {
    TALLY_HOT_PATH("outer");
    TALLY_HOT_PATH("middle");
    TALLY_HOT_PATH("inner");
    allocate();
  });
}

TEST_CASE("when an inner hot path ends, the outer one still guards") {
  require_abort("malloc of 40 bytes in outer", [] {
    TALLY_HOT_PATH("outer");
    {
      TALLY_HOT_PATH("inner");
    }
    allocate();
  });
}

namespace {

void recurse_and_allocate(int depth) {
  TALLY_HOT_PATH("s");
  if (depth > 1)
    recurse_and_allocate(depth - 1);
  else
    allocate();
}

}  // namespace

TEST_CASE("hot paths nested deeper than the guard can name still guard") {
  std::string names = "s";
  for (int i = 1; i < 16; ++i)
    names += " > s";
  require_abort("malloc of 40 bytes in " + names, [] { recurse_and_allocate(16); });
  require_abort("malloc of 40 bytes in " + names + " > ...", [] { recurse_and_allocate(100); });
}

TEST_CASE("a hot path on one thread leaves other threads free to allocate") {
  require_silence([] {
    std::atomic<bool> section_open = false;
    std::atomic<bool> allocated = false;
    std::thread other([&] {
      while (!section_open)
        std::this_thread::yield();
      allocate();
      allocated = true;
    });
    {
      TALLY_HOT_PATH("section");
      section_open = true;
      while (!allocated)
        std::this_thread::yield();
    }
    other.join();
  });
}

TEST_CASE("a hot path guards on whichever thread it is opened") {
  require_abort("malloc of 40 bytes in worker", [] {
    std::thread([] {
      TALLY_HOT_PATH("worker");
      allocate();
    }).join();
  });
}

TEST_CASE("allocation before and after a hot path, and freeing inside it, are silent") {
  require_silence([] {
    allocate();
    void* block = keep(std::malloc(40));
    long* object = keep(new long);
    {
      TALLY_HOT_PATH("section");
      std::free(block);
      delete object;
    }
    allocate();
  });
}

TEST_CASE("a paused hot path allows allocation") {
  require_silence([] {
    TALLY_HOT_PATH("section");
    TALLY_HOT_PATH_PAUSE("the test allocates");
    allocate();
  });
}

TEST_CASE("a hot path is armed again when its pause ends") {
  require_abort("malloc of 40 bytes in section", [] {
    TALLY_HOT_PATH("section");
    {
      TALLY_HOT_PATH_PAUSE("outer pause");
      {
        TALLY_HOT_PATH_PAUSE("inner pause");
      }
      std::free(keep(std::malloc(39)));  // still within the outer pause
    }
    allocate();
  });
}

TEST_CASE("a hot path opened during a pause guards, and the pause resumes when it ends") {
  require_abort("malloc of 40 bytes in outer > inner", [] {
    TALLY_HOT_PATH("outer");
    TALLY_HOT_PATH_PAUSE("calls back");
    TALLY_HOT_PATH("inner");
    allocate();
  });
  require_silence([] {
    TALLY_HOT_PATH("outer");
    TALLY_HOT_PATH_PAUSE("calls back");
    {
      TALLY_HOT_PATH("inner");
    }
    allocate();
  });
}

TEST_CASE("a pause outside any hot path changes nothing") {
  require_silence([] {
    {
      TALLY_HOT_PATH_PAUSE("nothing to pause");
    }
    allocate();
  });
}

TEST_CASE("the replaced allocation functions keep the contracts of the originals") {
  void* block = nullptr;
  CHECK(::posix_memalign(&block, 24, 8) == EINVAL);
  CHECK(::posix_memalign(&block, 2, 8) == EINVAL);
  errno = 0;
  CHECK(::posix_memalign(&block, 64, SIZE_MAX / 2) == ENOMEM);
  CHECK(errno == 0);
  CHECK(block == nullptr);
  REQUIRE(::posix_memalign(&block, 4096, 8) == 0);
  CHECK(reinterpret_cast<uintptr_t>(block) % 4096 == 0);
  volatile std::size_t huge = SIZE_MAX / 2;
  CHECK(::reallocarray(block, huge, 3) == nullptr);
  CHECK(errno == ENOMEM);
  std::free(block);
}

#else

namespace {

constexpr bool marks_only() {
  TALLY_HOT_PATH("section");
  TALLY_HOT_PATH_PAUSE("reason");
  return true;
}

}  // namespace

TEST_CASE("in unguarded builds the hot path macros generate no code and forbid nothing") {
  // A constant expression can't touch thread state, construct objects with effects or call out.
  STATIC_REQUIRE(marks_only());
  TALLY_HOT_PATH("section");
  allocate();
  SUCCEED("allocation inside a hot path is permitted");
}

#endif
