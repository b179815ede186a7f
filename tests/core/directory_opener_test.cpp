#include "core/directory_opener.hpp"

#include <fcntl.h>
#include <pthread.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "core/unique_fd.hpp"
#include "tests/core/scanned.hpp"
#include "tests/skip.hpp"
#include "tests/temp_folder.hpp"

using namespace tally;
using namespace tally::test;

namespace {

/// A root with eight children, all in the tree and none open.
struct Family {
  Family() : scan(tree, links, 1, descriptors_max, false, nullptr), writer(scan.names) {
    const FileStat stat = stat_fd(source.get()).value();
    root = tree.insert_scanned({}, stat).value();
    scan.source_fd = source.get();
    scan.enter(root, {}, stat);
    for (const char* name : {"0", "1", "2", "3", "4", "5", "6", "7"}) {
      std::filesystem::create_directory(folder.path() + "/" + name);
      const FileStat child_stat = stat_at(source.get(), name).value();
      children.push_back(tree.insert_scanned(root, child_stat).value());
      scan.enter(children.back(), writer.store(name).value(), child_stat);
    }
  }

  void open_root(DirectoryOpener& opener) {
    opener.open({&root, 1});
    REQUIRE(scan.state(root).is_open());
    scan.state(root).unopened += 8;
    opener.finish_reading(root);
  }

  void require_children_open(std::size_t first = 0) {
    for (const DirIndex child : std::span(children).subspan(first)) {
      REQUIRE(scan.state(child).is_open());
      CHECK(stat_fd(scan.state(child).descriptor)->key == tree.key_of(child));
    }
  }

  static constexpr uint32_t descriptors_max = 4096;

  TempFolder folder{"opener"};
  UniqueFd source{::open(folder.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)};
  DirTree tree{16};
  HardLinks links{tree, 16};
  ScanContext scan;
  NameArena::Writer writer;
  std::vector<char> path_room = std::vector<char>(4096);
  DirIndex root;
  std::vector<DirIndex> children;
};

/// While it lives nothing can be submitted to any ring.
struct WithoutSubmission {
  WithoutSubmission() { Ring::submit_error_for_tests = ENOMEM; }
  ~WithoutSubmission() { Ring::submit_error_for_tests = 0; }
};

/// The limit below which so many descriptors are free.
rlim_t limit_with_free(std::size_t count) {
  std::vector<UniqueFd> taken(count + 1);
  for (UniqueFd& next : taken)
    next.reset(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0));
  return static_cast<rlim_t>(taken.back().get());
}

}  // namespace

TEST_CASE("a batch is opened through the ring, which closes with the batch after it") {
  if (!Ring::create(8)) return tally::test::skip("no io_uring here");
  Family family;
  DirectoryOpener opener(family.scan, 64, family.path_room);
  REQUIRE(opener.batch_size() == 8);
  family.open_root(opener);
  const std::size_t open_before = open_descriptors();
  const std::span<const DirIndex> first = std::span(family.children).first(4);
  const std::span<const DirIndex> second = std::span(family.children).last(4);
  opener.open(first);
  for (const DirIndex child : first)
    opener.finish_reading(child);
  CHECK(open_descriptors() == open_before + 4);
  opener.open(second);
  CHECK(open_descriptors() == open_before + 4);
  // The root has lent its descriptor to the last child; the ring will close it.
  for (const DirIndex child : second)
    opener.finish_reading(child);
  CHECK(open_descriptors() == open_before + 4);
  opener.flush();
  CHECK(open_descriptors() == open_before - 1);
}

TEST_CASE("without a ring directories are opened and closed one by one") {
  Family family;
  DirectoryOpener opener(family.scan, 0, family.path_room);
  CHECK(opener.batch_size() == 1);
  family.open_root(opener);
  const std::size_t open_before = open_descriptors();
  for (const DirIndex& child : family.children)
    opener.open({&child, 1});
  family.require_children_open();
  CHECK(open_descriptors() == open_before + 8 - 1);
  for (const DirIndex child : family.children)
    opener.finish_reading(child);
  CHECK(open_descriptors() == open_before - 1);
}

TEST_CASE("a ring too small for the batch opens what fits, and plain calls open the rest") {
  Family family;
  DirectoryOpener opener(family.scan, 2, family.path_room);
  family.open_root(opener);
  opener.open(family.children);
  family.require_children_open();
  for (const DirIndex child : family.children)
    opener.finish_reading(child);
  opener.flush();
}

TEST_CASE("a directory that can't be opened leaves its errno, and the others are opened") {
  for (const unsigned queue_depth : {0u, 64u}) {
    Family family;
    DirectoryOpener opener(family.scan, queue_depth, family.path_room);
    family.open_root(opener);
    std::filesystem::remove(family.folder.path() + "/3");
    opener.open(family.children);
    for (std::size_t i = 0; i < 8; ++i) {
      CHECK(family.scan.state(family.children[i]).is_open() == (i != 3));
      if (i != 3) opener.finish_reading(family.children[i]);
    }
    CHECK(family.scan.state(family.children[3]).descriptor == -ENOENT);
    opener.flush();
  }
}

TEST_CASE(
    "when the kernel has no memory for a batch, it is opened without, and nothing stays open") {
  Family family;
  const std::size_t open_before = open_descriptors();
  DirectoryOpener opener(family.scan, 64, family.path_room);
  family.open_root(opener);
  const std::span<const DirIndex> first = std::span(family.children).first(4);
  opener.open(first);
  for (const DirIndex child : first)
    opener.finish_reading(child);  // leaves four to close
  {
    const WithoutSubmission without_submission;
    opener.open(std::span(family.children).last(4));
  }
  family.require_children_open(4);
  CHECK(opener.batch_size() == 1);
  for (const DirIndex child : std::span(family.children).last(4))
    opener.finish_reading(child);
  CHECK(open_descriptors() == open_before);
}

TEST_CASE("when the kernel has no memory to close through the ring, it is done without") {
  Family family;
  const std::size_t open_before = open_descriptors();
  DirectoryOpener opener(family.scan, 64, family.path_room);
  family.open_root(opener);
  const std::span<const DirIndex> some = std::span(family.children).first(4);
  opener.open(some);
  for (const DirIndex child : some)
    opener.finish_reading(child);
  {
    const WithoutSubmission without_submission;
    opener.flush();
  }
  CHECK(open_descriptors() == open_before + 1);  // the root, for the other children
}

TEST_CASE("a path from the root goes through no symbolic link, not even to the same directory") {
  Family family;
  DirectoryOpener opener(family.scan, 0, family.path_room);
  const DirIndex middle = family.children[0];
  const std::string path = family.folder.path() + "/0";
  std::filesystem::create_directory(path + "/below");
  const FileStat stat = stat_at(AT_FDCWD, (path + "/below").c_str()).value();
  const DirIndex below = family.tree.insert_scanned(middle, stat).value();
  family.scan.enter(below, family.writer.store("below").value(), stat);
  REQUIRE(family.scan.lending.take(Family::descriptors_max) == Family::descriptors_max);
  family.open_root(opener);
  opener.open({&middle, 1});
  REQUIRE(family.scan.state(middle).is_open());
  ++family.scan.state(middle).unopened;
  opener.finish_reading(middle);

  std::filesystem::rename(path, path + "moved");
  std::filesystem::create_directory_symlink(path + "moved", path);
  opener.open({&below, 1});
  CHECK(family.scan.state(below).descriptor == -ELOOP);
}

TEST_CASE("what of a batch there are no descriptors for stays unopened, and claims none to lend") {
  for (const unsigned queue_depth : {0u, 64u}) {
    Family family;
    DirectoryOpener opener(family.scan, queue_depth, family.path_room);
    family.open_root(opener);
    {
      const DescriptorLimit limit(limit_with_free(3));
      opener.open(family.children);
    }
    uint32_t open = 0;
    for (const DirIndex child : family.children)
      if (family.scan.state(child).is_open()) ++open;
    CHECK(open == 3);
    CHECK(family.scan.state(family.children[0]).is_open());
    CHECK(family.scan.state(family.children[7]).descriptor == ScanState::not_opened);
    // Three children lend, and the root, which has children to be opened.
    CHECK(family.scan.lending.take(Family::descriptors_max) == Family::descriptors_max - 4);
    for (const DirIndex child : family.children)
      if (family.scan.state(child).is_open()) opener.finish_reading(child);
    opener.flush();
  }
}

TEST_CASE("no more of a batch is opened than may lend, but at least one") {
  Family family;
  DirectoryOpener opener(family.scan, 64, family.path_room);
  family.open_root(opener);
  REQUIRE(family.scan.lending.take(Family::descriptors_max - 4) == Family::descriptors_max - 4);
  opener.open(family.children);
  CHECK(family.scan.state(family.children[2]).lends);
  CHECK(family.scan.state(family.children[3]).descriptor == ScanState::not_opened);
  opener.open(std::span(family.children).last(5));
  CHECK(family.scan.state(family.children[3]).is_open());
  CHECK_FALSE(family.scan.state(family.children[3]).lends);
  CHECK(family.scan.state(family.children[4]).descriptor == ScanState::not_opened);
  for (const DirIndex child : std::span(family.children).first(4))
    opener.finish_reading(child);
}

TEST_CASE("a directory is opened when a descriptor comes free, and not waited for for ever") {
  Family family;
  DirectoryOpener opener(family.scan, 0, family.path_room);
  family.open_root(opener);
  UniqueFd last(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0));
  const auto let_go = [](void* fd) -> void* {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    static_cast<UniqueFd*>(fd)->reset();
    return nullptr;
  };
  std::chrono::steady_clock::duration for_the_others;
  {
    // Nothing here may have virtual functions, no std::thread and no assertion: UBSan needs
    // descriptors to check their calls.
    const DescriptorLimit limit(limit_with_free(0));
    pthread_t other;
    if (::pthread_create(&other, nullptr, let_go, &last) != 0) return;
    opener.open({&family.children[0], 1});
    ::pthread_join(other, nullptr);
    opener.open({&family.children[1], 1});
    const auto start = std::chrono::steady_clock::now();
    for (const DirIndex& child : std::span(family.children).subspan(2))
      opener.open({&child, 1});
    for_the_others = std::chrono::steady_clock::now() - start;
  }
  REQUIRE(family.scan.state(family.children[0]).is_open());
  CHECK(family.scan.state(family.children[1]).descriptor == -EMFILE);
  // Having waited in vain once, it doesn't do so for every directory that is left.
  CHECK(for_the_others < std::chrono::milliseconds(500));
  opener.finish_reading(family.children[0]);
}
