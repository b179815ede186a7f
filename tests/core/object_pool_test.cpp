#include "core/object_pool.hpp"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "core/hot_path_guard.hpp"

namespace {

/// Keeps count of how many of its kind are alive.
struct Counted {
  Counted(std::atomic<int>* alive_count, uint64_t its_number)
      : alive(alive_count), number(its_number) {
    ++*alive;
  }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --*alive; }

  std::atomic<int>* alive;
  uint64_t number;
};

}  // namespace

TEST_CASE("an object pool constructs with arguments and destroys") {
  std::atomic<int> alive = 0;
  tally::ObjectPool<Counted> pool(2);
  Counted* object = pool.make(&alive, 42U);
  REQUIRE(object != nullptr);
  REQUIRE(object->number == 42);
  REQUIRE(alive == 1);
  REQUIRE(pool.size() == 1);
  REQUIRE(pool.destroy(object));
  REQUIRE(alive == 0);
  REQUIRE(pool.size() == 0);
}

TEST_CASE("a full object pool makes nothing until an object is destroyed") {
  std::atomic<int> alive = 0;
  tally::ObjectPool<Counted> pool(3);
  std::vector<Counted*> objects;
  for (unsigned i = 0; i < 3; ++i)
    objects.push_back(pool.make(&alive, i));
  for (int i = 0; i < 10; ++i)
    REQUIRE(pool.make(&alive, 9U) == nullptr);
  REQUIRE(alive == 3);
  REQUIRE(pool.destroy(objects[1]));
  REQUIRE(pool.make(&alive, 10U) == objects[1]);
  REQUIRE(objects[0]->number == 0);
  REQUIRE(objects[1]->number == 10);
  REQUIRE(objects[2]->number == 2);
  REQUIRE(pool.make(&alive, 9U) == nullptr);
}

TEST_CASE("an object pool destroys what is left when it ends") {
  std::atomic<int> alive = 0;
  {
    tally::ObjectPool<Counted> pool(5);
    REQUIRE(pool.make(&alive, 1U) != nullptr);
    Counted* destroyed = pool.make(&alive, 2U);
    REQUIRE(pool.make(&alive, 3U) != nullptr);
    REQUIRE(pool.destroy(destroyed));
    REQUIRE(alive == 2);
  }
  REQUIRE(alive == 0);
}

TEST_CASE("an object pool refuses to destroy what it does not hold") {
  std::atomic<int> alive = 0;
  tally::ObjectPool<Counted> pool(4);
  tally::ObjectPool<Counted> other_pool(4);
  Counted* object = pool.make(&alive, 1U);
  Counted* foreign = other_pool.make(&alive, 2U);
  Counted on_the_stack(&alive, 3);
  const auto moved = [](Counted* pointer, std::ptrdiff_t bytes) {
    return reinterpret_cast<Counted*>(reinterpret_cast<uintptr_t>(pointer) +
                                      static_cast<uintptr_t>(bytes));
  };
  constexpr std::ptrdiff_t size = sizeof(Counted);

  REQUIRE(pool.destroy(nullptr) == tally::failure(EINVAL));
  REQUIRE(pool.destroy(foreign) == tally::failure(EINVAL));
  REQUIRE(pool.destroy(&on_the_stack) == tally::failure(EINVAL));
  REQUIRE(pool.destroy(moved(object, 8)) == tally::failure(EINVAL));         // inside an object
  REQUIRE(pool.destroy(moved(object, size)) == tally::failure(EINVAL));      // never handed out
  REQUIRE(pool.destroy(moved(object, -size)) == tally::failure(EINVAL));     // before the first
  REQUIRE(pool.destroy(moved(object, 4 * size)) == tally::failure(EINVAL));  // behind the last
  // So far away that its slot number modulo 2^32 is the object's.
  REQUIRE(pool.destroy(moved(object, size << 32)) == tally::failure(EINVAL));
  REQUIRE(alive == 3);
  REQUIRE(pool.destroy(object));
  REQUIRE(pool.destroy(object) == tally::failure(EINVAL));  // destroyed already
  REQUIRE(alive == 2);
  REQUIRE(pool.size() == 0);
}

TEST_CASE("a constructor that throws leaves its slot of the object pool free") {
  struct Throwing {
    explicit Throwing(bool fail) {
      if (fail) throw std::runtime_error("no");
    }
  };
  tally::ObjectPool<Throwing> pool(1);
  REQUIRE_THROWS_AS(pool.make(true), std::runtime_error);
  REQUIRE(pool.size() == 0);
  REQUIRE(pool.make(false) != nullptr);
}

TEST_CASE("an object pool holds objects smaller than its own bookkeeping and over-aligned ones") {
  tally::ObjectPool<char> characters(3);
  char* a = characters.make('a');
  char* b = characters.make('b');
  REQUIRE(*a == 'a');
  REQUIRE(*b == 'b');
  REQUIRE(characters.destroy(a));

  struct alignas(64) Aligned {
    char text[65];
  };
  tally::ObjectPool<Aligned> aligned(3);
  for (int i = 0; i < 3; ++i)
    REQUIRE(reinterpret_cast<uintptr_t>(aligned.make()) % alignof(Aligned) == 0);
}

TEST_CASE("threads make and destroy objects of one pool without disturbing one another") {
  std::atomic<int> alive = 0;
  std::atomic<int> disturbed = 0;
  std::atomic<int> refused = 0;
  {
    tally::ObjectPool<Counted> pool(16);
    std::vector<std::jthread> threads;
    for (uint64_t thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        for (int i = 0; i < 20'000; ++i) {
          Counted* one = pool.make(&alive, thread);
          Counted* other = pool.make(&alive, thread);
          if (one == nullptr || other == nullptr || one == other) {
            ++refused;
            continue;
          }
          if (one->number != thread || other->number != thread) ++disturbed;
          if (!pool.destroy(one) || !pool.destroy(other)) ++refused;
        }
      });
    }
  }
  REQUIRE(alive == 0);
  REQUIRE(disturbed == 0);
  REQUIRE(refused == 0);
}

TEST_CASE("an object pool allocates nothing after construction") {
  tally::ObjectPool<int> pool(1);
  bool as_expected = true;
  {
    TALLY_HOT_PATH("object pool");
    int* number = pool.make(5);
    as_expected = *number == 5 && pool.make(6) == nullptr && pool.destroy(number) &&
                  !pool.destroy(number) && pool.make(7) == number;
  }
  REQUIRE(as_expected);
}
