#include "fs/inode_table.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <set>

#include <catch2/catch.hpp>

#include "tests/fs/inode_fixture.hpp"

using tally::DirIndex;
using tally::Errno;
using tally::FileStat;
using tally::fs::InodeRef;
using tally::fs::NodeId;
using tally::fs::PinnedInode;
using tally::test::InodeFixture;

TEST_CASE("the root has node id 1 and stays whatever is forgotten") {
  InodeFixture fixture(16);
  const PinnedInode root = fixture.table->pin(1).value();
  REQUIRE(root->id() == 1);
  REQUIRE(root->is_directory());
  REQUIRE(root->key() == tally::stat_at(AT_FDCWD, fixture.folder.path().c_str())->key);
  fixture.table->forget(1, 1000);
  REQUIRE(fixture.table->get(1).has_value());
  REQUIRE(fixture.table->size() == 1);
}

TEST_CASE("node ids that were never given out, or are no longer valid, are ESTALE") {
  InodeFixture fixture(16);
  for (const NodeId id : {NodeId{0}, NodeId{2}, NodeId{1} << 32 | 1, NodeId{1} << 32, ~NodeId{0}})
    REQUIRE(fixture.table->get(id).error() == Errno{ESTALE});
  fixture.create_file("a");
  const NodeId a = fixture.lookup("a");
  fixture.table->forget(a, 1);
  REQUIRE(fixture.table->get(a).error() == Errno{ESTALE});
  REQUIRE(fixture.table->pin(a).error() == Errno{ESTALE});
  fixture.table->forget(a, 1);
  REQUIRE(fixture.table->size() == 1);
}

TEST_CASE("an inode is found again by every name, with one node id and one lookup count") {
  InodeFixture fixture(16);
  fixture.create_file("a");
  REQUIRE(::link(fixture.path("a").c_str(), fixture.path("b").c_str()) == 0);
  const NodeId id = fixture.lookup("a");
  REQUIRE(fixture.lookup("b") == id);
  REQUIRE(fixture.lookup("a") == id);
  fixture.table->forget(id, 2);
  REQUIRE(fixture.table->get(id).has_value());
  fixture.table->forget(id, 1);
  REQUIRE_FALSE(fixture.table->get(id).has_value());
  REQUIRE(fixture.budget.claimed() == 1);
}

TEST_CASE("node ids never repeat although slots are used again") {
  InodeFixture fixture(16);
  fixture.create_file("a");
  fixture.create_file("b");
  std::set<NodeId> seen;
  std::set<uint32_t> slots;
  for (int i = 0; i < 5000; ++i) {
    const NodeId id = fixture.lookup(i % 3 == 0 ? "a" : "b");
    REQUIRE(id > 1);
    REQUIRE(seen.insert(id).second);
    slots.insert(static_cast<uint32_t>(id));
    fixture.table->forget(id, 1);
  }
  REQUIRE(slots.size() == 1);
}

TEST_CASE("a forgotten inode that is still referred to keeps its node id when looked up again") {
  InodeFixture fixture(16);
  fixture.create_file("a");
  const NodeId id = fixture.lookup("a");
  InodeRef open_file = fixture.table->get(id).value();
  open_file->open_handles = 7;
  fixture.table->forget(id, 1);
  REQUIRE(fixture.table->pin(open_file).has_value());

  REQUIRE(fixture.lookup("a") == id);
  REQUIRE(fixture.table->get(id).value()->open_handles == 7);
  open_file = {};
  REQUIRE(fixture.table->get(id).has_value());
  fixture.table->forget(id, 1);
  REQUIRE_FALSE(fixture.table->get(id).has_value());

  // A slot that is used again starts empty.
  REQUIRE(fixture.find("a").value()->open_handles == 0);
}

TEST_CASE("a shared reference keeps an inode alive on its own") {
  InodeFixture fixture(16);
  fixture.create_file("a");
  PinnedInode pinned = fixture.find("a").value();
  const NodeId id = pinned->id();
  InodeRef first = pinned.share();
  InodeRef second = first.share();
  pinned = {};
  first = {};
  REQUIRE(second->id() == id);
  REQUIRE(fixture.table->get(id).has_value());
  second = {};
  REQUIRE_FALSE(fixture.table->get(id).has_value());
}

TEST_CASE("a full table answers ENFILE and recovers when something is forgotten") {
  InodeFixture fixture(16, 4);
  for (const char* name : {"a", "b", "c", "d"})
    fixture.create_file(name);
  const NodeId a = fixture.lookup("a");
  fixture.lookup("b");
  fixture.lookup("c");
  const uint32_t claimed = fixture.budget.claimed();
  REQUIRE(fixture.find("d").error() == Errno{ENFILE});
  REQUIRE(fixture.budget.claimed() == claimed);
  REQUIRE(fixture.lookup("a") == a);

  fixture.table->forget(a, 2);
  const NodeId d = fixture.lookup("d");
  REQUIRE(static_cast<uint32_t>(d) == static_cast<uint32_t>(a));
  REQUIRE(d != a);
  REQUIRE(fixture.find("a").error() == Errno{ENFILE});
}

TEST_CASE("an unlinked inode stays usable until it is forgotten, and its name leads elsewhere") {
  InodeFixture fixture(16);
  fixture.create_file("a");
  const NodeId old_id = fixture.lookup("a");
  fixture.unlink("a");
  fixture.create_file("a");
  const NodeId new_id = fixture.lookup("a");
  REQUIRE(new_id != old_id);

  fixture.evict_all();
  const PinnedInode old_inode = fixture.table->pin(old_id).value();
  REQUIRE(tally::stat_fd(old_inode.fd())->nlink == 0);
  REQUIRE(tally::stat_fd(old_inode.fd())->key == old_inode->key());
  REQUIRE(tally::stat_fd(fixture.table->pin(new_id)->fd())->nlink == 1);
}

TEST_CASE("forgetting an unlinked inode frees it, and its number may come back as another inode") {
  InodeFixture fixture(16);
  fixture.create_file("a");
  fixture.create_file("b");
  const NodeId a = fixture.lookup("a");
  const FileStat stat_a = tally::stat_at(AT_FDCWD, fixture.path("a").c_str()).value();
  fixture.unlink("a");

  // The lower filesystem of a server may use the number again while we hold the inode open: here b
  // takes the role of the new inode with the old number.
  auto fd = fixture.table->open_descriptor(
      [&] { return ::open(fixture.path("b").c_str(), O_PATH | O_CLOEXEC); });
  const PinnedInode root = fixture.root();
  const PinnedInode second =
      fixture.table->find_or_create(std::move(*fd), stat_a, &*root, "b").value();
  REQUIRE(second->id() != a);
  REQUIRE(second->key() == stat_a.key);
  fixture.table->add_lookup(*second);

  // The end of the old slot must not take the new one out of the table.
  fixture.table->forget(a, 1);
  fd = fixture.table->open_descriptor(
      [&] { return ::open(fixture.path("b").c_str(), O_PATH | O_CLOEXEC); });
  REQUIRE(fixture.table->find_or_create(std::move(*fd), stat_a, &*root, "b").value()->id() ==
          second->id());
}

TEST_CASE("an O_TMPFILE is found by the name it gets") {
  InodeFixture fixture(16);
  const PinnedInode root = fixture.root();
  const tally::UniqueFd file(::openat(root.fd(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0644));
  REQUIRE(file);
  const std::string link = "/proc/self/fd/" + std::to_string(file.get());
  auto fd =
      fixture.table->open_descriptor([&] { return ::open(link.c_str(), O_PATH | O_CLOEXEC); });
  const FileStat nameless = tally::stat_fd(fd->get()).value();
  REQUIRE(nameless.nlink == 0);
  NodeId id = 0;
  {
    const PinnedInode inode =
        fixture.table->find_or_create(std::move(*fd), nameless, nullptr, nullptr).value();
    fixture.table->add_lookup(*inode);
    id = inode->id();
  }
  fixture.evict_all();
  REQUIRE(fixture.table->pin(id).has_value());

  {
    const PinnedInode inode = fixture.table->pin(id).value();
    REQUIRE(::linkat(AT_FDCWD, link.c_str(), root.fd(), "named", AT_SYMLINK_FOLLOW) == 0);
    fixture.table->named(inode, *root, "named", 1);
  }
  REQUIRE(fixture.lookup("named") == id);
  const uint32_t claimed = fixture.budget.claimed();
  fixture.evict_all();
  REQUIRE(fixture.budget.claimed() == claimed - 1);
  REQUIRE(fixture.lookup("named") == id);
}

TEST_CASE("the node of a removed directory goes back to the tree with its last reference") {
  InodeFixture fixture(16);
  fixture.create_directory("gone");
  fixture.create_directory("stays");
  const FileStat root_stat = tally::stat_at(AT_FDCWD, fixture.folder.path().c_str()).value();
  const DirIndex root = fixture.tree.insert({}, root_stat).value();
  for (const char* name : {"gone", "stays"}) {
    const NodeId id = fixture.lookup(name);
    const FileStat stat = tally::stat_at(AT_FDCWD, fixture.path(name).c_str()).value();
    fixture.table->get(id).value()->dir = fixture.tree.insert(root, stat).value();
  }
  const NodeId gone = fixture.lookup("gone");
  const NodeId stays = fixture.lookup("stays");
  REQUIRE(fixture.tree.nodes_held() == 3);

  fixture.unlink("gone");
  {
    tally::WriterLock lock(fixture.tree.lock());
    fixture.tree.remove(fixture.table->get(gone).value()->dir);
  }
  REQUIRE(fixture.tree.nodes_held() == 3);
  fixture.table->forget(gone, 2);
  REQUIRE(fixture.tree.nodes_held() == 2);
  fixture.table->forget(stays, 2);
  REQUIRE(fixture.tree.nodes_held() == 2);
}

TEST_CASE("inodes can be locked together whether they are equal, absent or share a lock") {
  InodeFixture fixture(16, 5000);
  std::vector<NodeId> ids;
  for (int i = 0; i < 1030; ++i) {  // more than there are locks
    fixture.create_file(std::to_string(i));
    ids.push_back(fixture.lookup(std::to_string(i)));
  }
  const InodeRef a = fixture.table->get(ids[0]).value();
  const InodeRef same_lock = fixture.table->get(ids[1024]).value();
  const InodeRef other = fixture.table->get(ids[5]).value();
  const tally::fs::Inode* absent = nullptr;
  {
    const auto lock = fixture.table->lock(*a, *same_lock, *other, absent);
    REQUIRE(a->id() % 1024 == same_lock->id() % 1024);
  }
  {
    const auto lock = fixture.table->lock(*other, *other, *a, *other);
    a->accounted = true;
  }
  const auto lock = fixture.table->lock(absent);
  REQUIRE(a->accounted);
}
