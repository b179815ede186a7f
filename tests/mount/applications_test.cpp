#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"

using namespace tally::test;

namespace {

constexpr auto shell_limit = std::chrono::seconds(120);

/// Runs shell commands in the mount's root, which have to succeed, and then checks all counters.
void in_mount(const Mount& mount, const std::string& commands) {
  const Finished finished = run({"sh", "-euc", commands}, mount.at(), shell_limit);
  INFO(commands << "\n" << finished.output);
  REQUIRE(finished.status == 0);
  check_counters(mount);
}

}  // namespace

TEST_CASE("git makes, commits to, clones and checks a repository") {
  if (!can_mount() || !has_programs({"git"})) return;
  const MountFolders folders;
  const Mount mount(folders);
  in_mount(mount, R"sh(
    export HOME="$PWD" GIT_AUTHOR_NAME=Test GIT_AUTHOR_EMAIL=test@example.invalid
    export GIT_COMMITTER_NAME=Test GIT_COMMITTER_EMAIL=test@example.invalid
    git init -q -b main repository
    cd repository
    for i in 1 2 3 4 5; do
      mkdir -p "dir$i/sub"; seq "$i" 5000 > "dir$i/sub/numbers"; echo "$i" > "file$i"
      git add . ; git commit -qm "commit $i"
    done
    git mv dir1 moved; git commit -qm "move"
    git gc -q
    cd ..
    git clone -q repository clone
    git -C clone fsck --strict
    git -C clone log --oneline | wc -l | grep -qx 6
    test -z "$(git -C repository status --porcelain)"
    test -z "$(git -C clone status --porcelain)"
  )sh");
  in_mount(mount, "rm -rf repository");
}

TEST_CASE("tar, cp -a and rsync -a carry a tree over as they do natively") {
  if (!can_mount() || !has_programs({"tar", "rsync"})) return;
  const uint64_t seed = seed_or(31);
  INFO("seed " << seed);
  const MountFolders folders;
  const MountFolders original;
  make_fake_tree(original.source(), TreeShape::hard_links, seed, 300);
  const Mount mount(folders);
  // What a tool leaves out on every filesystem (tar the sockets), it may leave out here too.
  const auto carries_natively = [&](const std::string& commands, const std::string& into) {
    const std::string with_origin = "origin=" + original.source() + "\n" + commands;
    const Finished native = run({"sh", "-euc", with_origin}, folders.native(), shell_limit);
    INFO(native.output);
    REQUIRE(native.status == 0);
    in_mount(mount, with_origin);
    INFO(commands);
    CHECK(differences(describe_tree(folders.native(into)), describe_tree(mount.at(into))) ==
          std::vector<std::string>{});
  };
  carries_natively("mkdir tar; tar -C \"$origin\" --sparse -cf - . | tar -C tar -xpf -", "tar");
  carries_natively("cp -a \"$origin\" cp", "cp");
  carries_natively("rsync -aHX \"$origin\"/ rsync", "rsync");
  INFO("and within the mount");
  carries_natively("cp -a cp copy", "copy");
  carries_natively("rsync -aHX --delete rsync/ tar/", "tar");
  in_mount(mount, "rm -rf cp copy");
}

TEST_CASE("sqlite3 commits, rolls back and stays sound, with and without a write-ahead log") {
  if (!can_mount() || !has_programs({"sqlite3"})) return;
  const MountFolders folders;
  const Mount mount(folders);
  for (const char* journal : {"delete", "wal", "truncate"}) {
    in_mount(mount, std::string("journal=") + journal + R"sh(
      sqlite3 "$journal.db" "PRAGMA journal_mode=$journal; CREATE TABLE t(a INTEGER, b TEXT);"
      for i in 1 2 3; do
        sqlite3 "$journal.db" "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n
          WHERE i < 2000) INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;"
      done
      sqlite3 "$journal.db" "BEGIN; DELETE FROM t; ROLLBACK; DELETE FROM t WHERE a % 2; VACUUM;"
      test "$(sqlite3 "$journal.db" 'SELECT count(*) FROM t')" = 3000
      test "$(sqlite3 "$journal.db" 'PRAGMA integrity_check')" = ok
    )sh");
  }
}

TEST_CASE("cmake configures, builds and runs a small program") {
  if (!can_mount() || !has_programs({"cmake"})) return;
  const MountFolders folders;
  const Mount mount(folders);
  in_mount(mount, R"sh(
    mkdir project
    cd project
    printf 'cmake_minimum_required(VERSION 3.20)\nproject(p C)\nadd_library(l STATIC l.c)\n' \
      > CMakeLists.txt
    printf 'add_executable(p p.c)\ntarget_link_libraries(p l)\n' >> CMakeLists.txt
    printf 'int answer(void) { return 42; }\n' > l.c
    printf 'int answer(void);\nint main(void) { return answer() - 42; }\n' > p.c
    cmake -S . -B build
    cmake --build build
    build/p
  )sh");
  in_mount(mount, "rm -rf project/build");
}

TEST_CASE("a source tree unpacked, built upon and deleted leaves exact counters") {
  if (!can_mount() || !has_programs({"tar"})) return;
  const MountFolders folders;
  const Mount mount(folders);
  in_mount(mount, R"sh(
    mkdir tree
    tar -C /usr/include -cf - . | tar -C tree -xf -
    find tree -name '*.h' | head -200 | xargs -d '\n' sed -i '1i // edited'
    mv tree/linux moved
    chmod -R u+w tree
  )sh");
  in_mount(mount, "rm -rf tree moved");
  CHECK(counter(mount.at(), "rentries") == 0);
}
