// The inode table's cache of descriptors: bounded, and opened again by handle or by name.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>
#include <iostream>
#include <optional>

#include <catch2/catch.hpp>

#include "fs/inode_table.hpp"
#include "tests/fs/inode_fixture.hpp"

using tally::CountedFd;
using tally::Errno;
using tally::FileStat;
using tally::fs::NodeId;
using tally::fs::PinnedInode;
using tally::test::InodeFixture;
using Reopen = InodeFixture::Reopen;

namespace {

std::ptrdiff_t open_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

/// Whether the inode's descriptor leads to the inode.
bool leads_to_itself(const PinnedInode& inode) {
  const auto stat = tally::stat_fd(inode.fd());
  return stat && stat->key == inode->key();
}

/// Both ways of opening again, where this process may use handles.
std::vector<Reopen> both_ways() {
  if (tally::test::may_open_by_handle()) return {Reopen::by_handle, Reopen::by_name};
  return {Reopen::by_name};
}

}  // namespace

TEST_CASE("five thousand inodes are usable with 64 descriptors") {
  for (const Reopen reopen : both_ways()) {
    InodeFixture fixture(64, 6000, reopen);
    const auto before = open_descriptors();
    std::vector<NodeId> ids;
    for (int directory = 0; directory < 50; ++directory) {
      const std::string name = "d" + std::to_string(directory);
      fixture.create_directory(name);
      ids.push_back(fixture.lookup(name));
      for (int file = 0; file < 99; ++file) {
        fixture.create_file(name + "/" + std::to_string(file));
        const PinnedInode parent = fixture.table->pin(fixture.lookup(name)).value();
        ids.push_back(fixture.lookup(parent, std::to_string(file)));
      }
    }
    REQUIRE(fixture.table->size() == 5001);
    for (const NodeId id : ids) {
      const auto inode = fixture.table->pin(id);
      REQUIRE(inode.has_value());
      REQUIRE(leads_to_itself(*inode));
      REQUIRE(fixture.budget.claimed() <= 64);
    }
    REQUIRE(open_descriptors() <= before + 64);
    for (const NodeId id : ids)
      fixture.table->forget(id, 1000);
    REQUIRE(fixture.table->size() == 1);
    REQUIRE(fixture.budget.claimed() == 1);
  }
}

TEST_CASE("what is pinned keeps its descriptor under pressure; the rest is opened again") {
  for (const Reopen reopen : both_ways()) {
    InodeFixture fixture(8, 100, reopen);
    fixture.create_file("pinned");
    fixture.create_file("idle");
    const NodeId idle = fixture.lookup("idle");
    const PinnedInode pinned = fixture.find("pinned").value();
    REQUIRE(fixture.budget.claimed() == 3);
    fixture.evict_all();
    REQUIRE(fixture.budget.claimed() == 2);
    REQUIRE(leads_to_itself(pinned));
    REQUIRE(leads_to_itself(fixture.table->pin(idle).value()));
    REQUIRE(fixture.budget.claimed() == 3);
  }
}

TEST_CASE("open files squeeze the cache, and when they fill the budget the answer is ENFILE") {
  InodeFixture fixture(8);
  fixture.create_file("a");
  const NodeId a = fixture.lookup("a");
  std::vector<CountedFd> open_files;
  const auto open_file = [&] {
    return fixture.table->open_descriptor(
        [&] { return ::open(fixture.path("a").c_str(), O_RDONLY | O_CLOEXEC); });
  };
  for (int i = 0; i < 7; ++i)
    open_files.push_back(open_file().value());
  REQUIRE(open_file().error() == Errno{ENFILE});
  REQUIRE(fixture.table->pin(a).error() == Errno{ENFILE});
  REQUIRE(fixture.table->get(a).has_value());
  open_files.pop_back();
  REQUIRE(leads_to_itself(fixture.table->pin(a).value()));
}

TEST_CASE("an open that fails gives its claim back and keeps its error") {
  InodeFixture fixture(8);
  const auto failed = fixture.table->open_descriptor(
      [&] { return ::open(fixture.path("absent").c_str(), O_RDONLY | O_CLOEXEC); });
  REQUIRE(failed.error() == Errno{ENOENT});
  REQUIRE(fixture.budget.claimed() == 1);
}

TEST_CASE(
    "when the process runs out of descriptors before the budget does, cached ones are closed") {
  InodeFixture fixture(100'000);
  for (int i = 0; i < 200; ++i)
    fixture.create_file(std::to_string(i));
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit scarce = before;
  {
    const tally::UniqueFd lowest_free(::open("/", O_PATH | O_CLOEXEC));
    scarce.rlim_cur = static_cast<rlim_t>(lowest_free.get()) + 20;
  }
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &scarce) == 0);
  int failures = 0;
  for (int i = 0; i < 200; ++i) {
    auto found = fixture.find(std::to_string(i));
    if (found) fixture.table->add_lookup(**found);
    failures += found ? 0 : 1;
  }
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  REQUIRE(failures == 0);
  REQUIRE(fixture.table->size() == 201);
  REQUIRE(fixture.budget.claimed() <= 20);
}

TEST_CASE("symbolic links, sockets and FIFOs are opened again as themselves") {
  for (const Reopen reopen : both_ways()) {
    InodeFixture fixture(8, 100, reopen);
    REQUIRE(::symlink("nowhere", fixture.path("symlink").c_str()) == 0);
    REQUIRE(::mknod(fixture.path("socket").c_str(), S_IFSOCK | 0600, 0) == 0);
    REQUIRE(::mkfifo(fixture.path("fifo").c_str(), 0600) == 0);
    for (const char* name : {"symlink", "socket", "fifo"}) {
      const NodeId id = fixture.lookup(name);
      fixture.evict_all();
      REQUIRE(leads_to_itself(fixture.table->pin(id).value()));
    }
  }
}

TEST_CASE("an inode deleted behind our back while evicted is ESTALE and can be forgotten") {
  for (const Reopen reopen : both_ways()) {
    InodeFixture fixture(8, 100, reopen);
    fixture.create_file("a");
    const NodeId id = fixture.lookup("a");
    fixture.evict_all();
    REQUIRE(::unlink(fixture.path("a").c_str()) == 0);
    REQUIRE(fixture.table->pin(id).error() == Errno{ESTALE});
    fixture.create_file("a");
    REQUIRE(fixture.table->pin(id).error() == Errno{ESTALE});
    REQUIRE(fixture.lookup("a") != id);
    fixture.table->forget(id, 1);
    REQUIRE(fixture.table->size() == 2);
  }
}

TEST_CASE("what is known is found by its name with no descriptor of it, and nothing else is") {
  for (const Reopen reopen : both_ways()) {
    InodeFixture fixture(8, 100, reopen);
    fixture.create_file("known");
    fixture.create_file("unknown");
    const auto key_of = [&](const char* name) {
      return tally::stat_at(AT_FDCWD, fixture.path(name).c_str()).value().key;
    };
    const PinnedInode root = fixture.root();
    const auto find = [&](const tally::FileKey& key, const char* name) -> std::optional<NodeId> {
      const tally::fs::InodeRef found = fixture.table->find(key, root.fd(), name);
      return found ? std::optional(found->id()) : std::nullopt;
    };
    const NodeId id = fixture.lookup("known");
    const tally::FileKey key = key_of("known");
    REQUIRE(find(key, "known") == id);
    REQUIRE_FALSE(find(key_of("unknown"), "unknown"));
    fixture.evict_all();
    REQUIRE(find(key, "known") == id);
    // Another one that is said to have its number: birth times are as coarse as the kernel's tick.
    ::usleep(20'000);
    fixture.create_file("other");
    REQUIRE_FALSE(find(key, "other"));
    REQUIRE_FALSE(find(key, "missing"));
    REQUIRE(fixture.table->get(id).has_value());
    fixture.table->forget(id, 1);
    REQUIRE_FALSE(find(key, "known"));
  }
}

TEST_CASE("a new inode with the number of one deleted while evicted is not taken for it") {
  for (const Reopen reopen : both_ways()) {
    InodeFixture fixture(8, 100, reopen);
    fixture.create_file("old");
    const NodeId old_id = fixture.lookup("old");
    const FileStat stat = tally::stat_at(AT_FDCWD, fixture.path("old").c_str()).value();
    fixture.evict_all();

    // Which number the filesystem gives next is not in our hands, so that the table is told that
    // the new file had the old one's. Birth times are as coarse as the kernel's tick.
    ::usleep(20'000);
    fixture.create_file("new");
    REQUIRE(::rename(fixture.path("new").c_str(), fixture.path("old").c_str()) == 0);
    const PinnedInode root = fixture.root();
    const auto find_new = [&] {
      auto fd = fixture.table->open_descriptor(
          [&] { return ::open(fixture.path("old").c_str(), O_PATH | O_CLOEXEC); });
      return fixture.table->find_or_create(std::move(fd.value()), stat, &*root, "old").value();
    };
    const NodeId new_id = [&] {
      const PinnedInode inode = find_new();
      fixture.table->add_lookup(*inode);
      return inode->id();
    }();
    REQUIRE(new_id != old_id);
    REQUIRE(fixture.table->get(old_id).has_value());
    REQUIRE(fixture.table->pin(old_id).error() == Errno{ESTALE});
    REQUIRE(find_new()->id() == new_id);

    // Evicted and met again, the new inode is recognised; the end of the old one changes nothing.
    fixture.evict_all();
    REQUIRE(find_new()->id() == new_id);
    fixture.table->forget(old_id, 1);
    REQUIRE(fixture.table->get(old_id).error() == Errno{ESTALE});
    REQUIRE(find_new()->id() == new_id);
  }
}

TEST_CASE("by name: a deep path is opened again from its nearest open ancestor") {
  InodeFixture fixture(8, 1000, Reopen::by_name);
  std::vector<NodeId> ids;
  std::string path;
  for (int depth = 0; depth < 100; ++depth) {
    path += depth == 0 ? "d" : "/d";
    fixture.create_directory(path);
    const PinnedInode parent = fixture.table->pin(ids.empty() ? 1 : ids.back()).value();
    ids.push_back(fixture.lookup(parent, "d"));
  }
  fixture.evict_all();
  REQUIRE(fixture.budget.claimed() == 1);
  REQUIRE(leads_to_itself(fixture.table->pin(ids.back()).value()));

  // The parents that the kernel forgets stay as long as the child needs them, and end with it.
  for (std::size_t i = 0; i + 1 < ids.size(); ++i)
    fixture.table->forget(ids[i], 1);
  fixture.evict_all();
  REQUIRE(leads_to_itself(fixture.table->pin(ids.back()).value()));
  fixture.table->forget(ids.back(), 1);
  REQUIRE(fixture.table->size() == 1);
}

TEST_CASE("by name: a renamed inode is opened under its new name") {
  InodeFixture fixture(8, 100, Reopen::by_name);
  fixture.create_directory("from");
  fixture.create_directory("to");
  fixture.create_file("from/a");
  const NodeId from = fixture.lookup("from");
  const NodeId to = fixture.lookup("to");
  const NodeId a = fixture.lookup(fixture.table->pin(from).value(), "a");
  {
    const PinnedInode moved = fixture.table->pin(a).value();
    REQUIRE(::rename(fixture.path("from/a").c_str(), fixture.path("to/b").c_str()) == 0);
    fixture.table->named(moved, *fixture.table->get(to).value(), "b", 1);
  }
  fixture.evict_all();
  REQUIRE(leads_to_itself(fixture.table->pin(a).value()));

  // A rename of a directory on the way needs nobody's attention but the directory's.
  {
    const PinnedInode moved = fixture.table->pin(to).value();
    REQUIRE(::rename(fixture.path("to").c_str(), fixture.path("elsewhere").c_str()) == 0);
    fixture.table->named(moved, *fixture.root(), "elsewhere", 2);
  }
  fixture.evict_all();
  REQUIRE(leads_to_itself(fixture.table->pin(a).value()));
  fixture.table->forget(from, 1);
  REQUIRE(fixture.table->get(from).error() == Errno{ESTALE});
}

TEST_CASE("by name: a look-up of the old name that a rename overtakes doesn't bring it back") {
  InodeFixture fixture(8, 100, Reopen::by_name);
  fixture.create_file("old");
  const NodeId id = fixture.lookup("old");
  {
    const PinnedInode root = fixture.root();
    auto fd = fixture.table->open_descriptor(
        [&] { return ::openat(root.fd(), "old", O_PATH | O_NOFOLLOW | O_CLOEXEC); });
    const FileStat stat = tally::stat_fd(fd->get()).value();
    const PinnedInode moved = fixture.table->pin(id).value();
    REQUIRE(::rename(fixture.path("old").c_str(), fixture.path("new").c_str()) == 0);
    fixture.table->named(moved, *root, "new", 1);
    REQUIRE(fixture.table->find_or_create(*std::move(fd), stat, &*root, "old").has_value());
  }
  fixture.evict_all();
  REQUIRE(leads_to_itself(fixture.table->pin(id).value()));
}

TEST_CASE("by name: an inode with several names keeps its descriptor") {
  InodeFixture fixture(8, 100, Reopen::by_name);
  fixture.create_file("a");
  REQUIRE(::link(fixture.path("a").c_str(), fixture.path("b").c_str()) == 0);
  const NodeId id = fixture.lookup("a");
  fixture.unlink("a");
  fixture.evict_all();
  REQUIRE(leads_to_itself(fixture.table->pin(id).value()));
  fixture.table->forget(id, 1);
  REQUIRE(fixture.budget.claimed() == 1);
}

TEST_CASE("by name: directories that swapped places behind our back don't tie a knot") {
  InodeFixture fixture(8, 100, Reopen::by_name);
  fixture.create_directory("a");
  fixture.create_directory("a/b");
  const NodeId a = fixture.lookup("a");
  const NodeId b = fixture.lookup(fixture.table->pin(a).value(), "b");
  REQUIRE(::rename(fixture.path("a/b").c_str(), fixture.path("b").c_str()) == 0);
  REQUIRE(::rename(fixture.path("a").c_str(), fixture.path("b/a").c_str()) == 0);
  // The kernel still knows b as a directory in a, and now looks up a in it.
  REQUIRE(fixture.lookup(fixture.table->pin(b).value(), "a") == a);
  fixture.evict_all();
  REQUIRE(leads_to_itself(fixture.table->pin(a).value()));
  fixture.table->forget(b, 1);
  fixture.table->forget(a, 2);
  REQUIRE(fixture.table->size() == 1);
}
