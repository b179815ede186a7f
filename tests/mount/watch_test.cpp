#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/lower_filesystem.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"
#include "tests/mount/random_changes.hpp"

// What others change below the mount, with no look-up through it. Repairs of what requests meet,
// and audits, would find it, too: so nothing here looks at an entry before the counters are right,
// and no mount audits by itself.

using namespace std::chrono_literals;
using namespace tally::test;
namespace stdfs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

// "Within a second", on a machine where other tests run.
constexpr auto soon = 3s;
constexpr const char* watched_only = "watch=auto,audit_iops=0";

/// Folders on a filesystem of their own: on one that other tests use there may be too many events.
struct OwnFilesystem {
  const LowerFilesystem lower{LowerKind::ext4, {.size_mib = 2048}};
};
struct FoldersApart : OwnFilesystem, MountFolders {
  FoldersApart() : MountFolders(lower.path()) {}
};

std::string state_of(const Mount& mount) {
  return read_xattr(mount.at(), "user.tally.state").value();
}

/// Counters of the root, to read which nobody looks below it.
struct Totals {
  int64_t rbytes;
  int64_t rfiles;
  int64_t rsubdirs;
  friend bool operator==(const Totals&, const Totals&) = default;
};

Totals totals_of(const Mount& mount) {
  return {.rbytes = counter(mount.at(), "rbytes"),
          .rfiles = counter(mount.at(), "rfiles"),
          .rsubdirs = counter(mount.at(), "rsubdirs")};
}

Totals totals_below(const Mount& mount) {
  const Counters want = naive_count(mount.lower()).at("");
  return {.rbytes = want.rbytes, .rfiles = want.rfiles, .rsubdirs = want.rsubdirs};
}

/// Waits until the root says what is below. (A moment later it may be in doubt once more: a change
/// may make several events.)
void expect_right_within(const Mount& mount, Clock::duration limit) {
  const auto deadline = Clock::now() + limit;
  const Totals want = totals_below(mount);
  while (true) {
    const Totals got = totals_of(mount);
    const std::string state = state_of(mount);
    const bool is_late = Clock::now() > deadline;
    if (!is_late && (got != want || state != "exact")) {
      std::this_thread::sleep_for(10ms);
      continue;
    }
    CHECK(got.rbytes == want.rbytes);
    CHECK(got.rfiles == want.rfiles);
    CHECK(got.rsubdirs == want.rsubdirs);
    CHECK(state == "exact");
    return;
  }
}

/// Waits until each directory is right. This looks into all of them.
void expect_all_right_within(const Mount& mount, Clock::duration limit) {
  const auto start = Clock::now();
  std::vector<std::string> wrong = wrong_counters(mount, Compare::exact_parts);
  while (!wrong.empty() && Clock::now() - start < limit) {
    std::this_thread::sleep_for(50ms);
    wrong = wrong_counters(mount, Compare::exact_parts);
  }
  CHECK(wrong == std::vector<std::string>());
}

/// Waits until a counter has this value.
void expect_counter_soon(const std::string& directory, const char* name, int64_t want) {
  const auto deadline = Clock::now() + soon;
  while (counter(directory, name) != want && Clock::now() < deadline)
    std::this_thread::sleep_for(10ms);
  CHECK(counter(directory, name) == want);
}

void append(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::app) << text;
}

/// Changes that others make, each of which has an effect on the counters of the root.
using Change = std::pair<const char*, std::function<void(const Mount&)>>;

const std::vector<Change>& changes() {
  static const std::vector<Change> all = {
      {"a file comes", [](const Mount& m) { write_file(m.lower("a/comes"), "12345"); }},
      {"a file grows", [](const Mount& m) { append(m.lower("a/b/file"), "more"); }},
      {"a file is truncated",
       [](const Mount& m) { REQUIRE(::truncate(m.lower("a/b/file").c_str(), 1) == 0); }},
      {"a file gets a hole at its end",
       [](const Mount& m) { REQUIRE(::truncate(m.lower("a/b/file").c_str(), 1 << 20) == 0); }},
      {"a file goes", [](const Mount& m) { REQUIRE(::unlink(m.lower("a/goes").c_str()) == 0); }},
      {"a file is replaced",
       [](const Mount& m) {
         write_file(m.lower("a/.new"), std::string(777, 'n'));
         REQUIRE(::rename(m.lower("a/.new").c_str(), m.lower("a/b/file").c_str()) == 0);
       }},
      {"a symbolic link comes",
       [](const Mount& m) { REQUIRE(::symlink("a target", m.lower("a/link").c_str()) == 0); }},
      {"a fifo comes",
       [](const Mount& m) { REQUIRE(::mkfifo(m.lower("a/b/fifo").c_str(), 0600) == 0); }},
      {"a directory comes with what is in it",
       [](const Mount& m) {
         stdfs::create_directories(m.lower("a/new/deep/er"));
         write_file(m.lower("a/new/deep/er/file"), "deep");
       }},
      {"a file is made below what has just come",
       [](const Mount& m) { write_file(m.lower("a/new/deep/later"), "later"); }},
      {"a directory moves to another one",
       [](const Mount& m) {
         REQUIRE(::rename(m.lower("a/new").c_str(), m.lower("c/moved").c_str()) == 0);
         append(m.lower("c/moved/deep/er/file"), "moved");
       }},
      {"a directory leaves the source",
       [](const Mount& m) {
         REQUIRE(::rename(m.lower("c/moved").c_str(), m.lower("../native/away").c_str()) == 0);
       }},
      {"a directory comes from outside",
       [](const Mount& m) {
         REQUIRE(::rename(m.lower("../native/away").c_str(), m.lower("a/b/back").c_str()) == 0);
       }},
      {"a directory goes with all that is in it",
       [](const Mount& m) { stdfs::remove_all(m.lower("a/b/back")); }},
      {"a tmpfile gets a name",
       [](const Mount& m) {
         const tally::UniqueFd fd(
             ::open(m.lower("c").c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
         REQUIRE(fd);
         REQUIRE(::write(fd.get(), "nameless", 8) == 8);
         const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
         REQUIRE(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, m.lower("c/named").c_str(),
                          AT_SYMLINK_FOLLOW) == 0);
       }},
      {"a file is copied into another by the kernel",
       [](const Mount& m) {
         const tally::UniqueFd from(::open(m.lower("a/comes").c_str(), O_RDONLY | O_CLOEXEC));
         const tally::UniqueFd to(
             ::open(m.lower("a/copy").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
         REQUIRE(::copy_file_range(from.get(), nullptr, to.get(), nullptr, 5, 0) == 5);
       }},
      {"two files change places",
       [](const Mount& m) {
         REQUIRE(::renameat2(AT_FDCWD, m.lower("a/comes").c_str(), AT_FDCWD, m.lower("a/b").c_str(),
                             RENAME_EXCHANGE) == 0);
       }},
  };
  return all;
}

void make_small_tree(const MountFolders& folders) {
  for (const char* path : {"a", "a/b", "c", "d"})
    REQUIRE(::mkdir(folders.source(path).c_str(), 0755) == 0);
  for (const char* path : {"a/b/file", "a/goes", "c/linked"})
    write_file(folders.source(path), "content");
}

}  // namespace

TEST_CASE("every kind of change made in the lower directory is counted soon with no look-up") {
  if (!can_mount()) return;
  const FoldersApart folders;
  make_small_tree(folders);
  const Mount mount(folders, {.options = watched_only});
  Clock::duration longest{};
  for (const auto& [what, change] : changes()) {
    INFO(what);
    change(mount);
    const auto start = Clock::now();
    expect_right_within(mount, soon);
    longest = std::max(longest, Clock::now() - start);
  }
  expect_all_right_within(mount, soon);
  CHECK(mount.log().find("left to audits") == std::string::npos);
  WARN("the slowest change was counted after "
       << std::chrono::duration_cast<std::chrono::milliseconds>(longest).count() << " ms");
}

TEST_CASE("a directory that others remove and make anew is not taken for the one it was") {
  if (!can_mount() || !can_mount_lower(LowerKind::ext4)) return;
  const LowerFilesystem alone(LowerKind::ext4);
  const MountFolders folders(alone.path());
  make_small_tree(folders);
  const Mount mount(folders, {.options = watched_only});
  const std::string directory = mount.lower("a/b");
  const std::string file = directory + "/file";
  const auto number = [&] { return tally::stat_at(AT_FDCWD, directory.c_str()).value().key.ino; };
  int same = 0;
  for (int round = 0; round < 10 && same < 2; ++round) {
    // In one go, so that there is nothing left of it when its events are read. Mostly ext4 gives it
    // the number of the one before.
    const ino_t before = number();
    REQUIRE(::unlink(file.c_str()) == 0);
    REQUIRE(::rmdir(directory.c_str()) == 0);
    REQUIRE(::mkdir(directory.c_str(), 0755) == 0);
    if (number() == before) ++same;
    expect_right_within(mount, soon);
    write_file(file, "content");
    expect_right_within(mount, soon);
  }
  CHECK(same > 0);
  expect_all_right_within(mount, soon);
}

TEST_CASE("a doubt about everything is over soon, whatever the slow audit takes") {
  if (!can_mount() || !can_mount_lower(LowerKind::ext4)) return;
  const LowerFilesystem alone(LowerKind::ext4);
  const MountFolders folders(alone.path());
  make_small_tree(folders);
  for (int i = 0; i < 300; ++i)
    write_file(folders.source("d/" + std::to_string(i)), "x");
  const Mount mount(folders, {.options = "watch=auto,audit_iops=100"});
  std::this_thread::sleep_for(5s);  // an audit has ended that took three seconds
  // Nobody has looked at it: where its other name is, is not known.
  REQUIRE(::link(mount.lower("a/b/file").c_str(), mount.lower("c/second").c_str()) == 0);
  std::this_thread::sleep_for(300ms);
  expect_right_within(mount, 5s);
}

TEST_CASE("attributes that others change show in the newest change of the tree") {
  if (!can_mount()) return;
  const FoldersApart folders;
  make_small_tree(folders);
  const Mount mount(folders, {.options = watched_only});
  for (const char* path : {"a/b/file", "a/b"}) {
    INFO(path);
    REQUIRE(::chmod(mount.lower(path).c_str(), 0700) == 0);
    struct stat st{};
    REQUIRE(::stat(mount.lower(path).c_str(), &st) == 0);
    const tally::TimeNs changed = st.st_ctim.tv_sec * 1'000'000'000 + st.st_ctim.tv_nsec;
    const auto deadline = Clock::now() + soon;
    while (rctime_ns(mount.at()) < changed && Clock::now() < deadline)
      std::this_thread::sleep_for(10ms);
    CHECK(rctime_ns(mount.at()) >= changed);
  }
}

TEST_CASE(
    "a file with several names that others change is right in all directories that have one") {
  if (!can_mount()) return;
  const FoldersApart folders;
  make_small_tree(folders);
  REQUIRE(::link(folders.source("c/linked").c_str(), folders.source("d/other").c_str()) == 0);
  const Mount mount(folders, {.options = watched_only});
  append(mount.lower("c/linked"), std::string(1000, 'x'));
  expect_right_within(mount, soon);
  // The directory of the other name, too.
  expect_counter_soon(mount.at("d"), "rbytes", 1007);
  expect_counter_soon(mount.at("c"), "rbytes", 1007);
  REQUIRE(::unlink(mount.lower("c/linked").c_str()) == 0);
  expect_counter_soon(mount.at("c"), "rbytes", 0);
  expect_counter_soon(mount.at("d"), "rbytes", 1007);
  // It is the only name now, and d alone has its blocks.
  expect_counter_soon(mount.at("d"), "runique", counter(mount.at("d"), "rdisk"));
  expect_all_right_within(mount, soon);
}

TEST_CASE("a second name made by others for a file that nobody has looked at counts once") {
  if (!can_mount()) return;
  const FoldersApart folders;
  make_small_tree(folders);
  const Mount mount(folders, {.options = watched_only});
  REQUIRE(::link(mount.lower("c/linked").c_str(), mount.lower("d/other").c_str()) == 0);
  // All of these are found by one audit, since where the first names are is not known.
  for (int i = 0; i < 50; ++i)
    REQUIRE(::link(mount.lower("a/b/file").c_str(),
                   mount.lower("d/more" + std::to_string(i)).c_str()) == 0);
  expect_right_within(mount, 10s);
  expect_all_right_within(mount, soon);
}

TEST_CASE("a second name made by others counts once also if it is looked up before its event") {
  if (!can_mount()) return;
  const FoldersApart folders;
  make_small_tree(folders);
  const std::string watch = GENERATE("watch=auto", "watch=off");
  const bool is_directory_known = GENERATE(false, true);
  CAPTURE(watch, is_directory_known);
  const Mount mount(folders, {.options = "audit_iops=0," + watch});
  if (is_directory_known) REQUIRE(stdfs::is_directory(mount.at("d")));
  REQUIRE(::link(mount.lower("c/linked").c_str(), mount.lower("d/other").c_str()) == 0);
  REQUIRE(stdfs::is_regular_file(mount.at("d/other")));
  expect_right_within(mount, 10s);
  expect_all_right_within(mount, soon);
}

TEST_CASE("what others make during the scan is counted soon after it") {
  if (!can_mount()) return;
  const std::string scan = GENERATE("scan=wait", "scan=background");
  CAPTURE(scan);
  const FoldersApart folders;
  constexpr int directories = 4'000;
  const auto directory = [&](int i) { return folders.source(std::to_string(i)); };
  for (int i = 0; i < directories; ++i)
    REQUIRE(::mkdir(directory(i).c_str(), 0755) == 0);
  // In each directory once, so that nothing that comes later makes up for what was missed.
  std::atomic<int> made = 0;
  std::jthread others([&](const std::stop_token& end) {
    while (!end.stop_requested() && made < directories) {
      write_file(directory(made * 1'237 % directories) + "/made", "content");
      ++made;
      std::this_thread::sleep_for(20us);
    }
  });
  const Mount mount(folders, {.options = std::string(watched_only) + "," + scan});
  others.request_stop();
  others.join();
  CHECK(made < directories);  // else the scan began too late
  expect_right_within(mount, 10s);
  // Some are marked once more, which makes them suspect for a moment.
  expect_all_right_within(mount, 20s);
}

TEST_CASE("what others write through a mapping is counted when they have closed it") {
  if (!can_mount()) return;
  const FoldersApart folders;
  const Mount mount(folders, {.options = watched_only});
  constexpr size_t size = 1 << 20;
  {
    const tally::UniqueFd fd(
        ::open(mount.lower("sparse").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    REQUIRE(::ftruncate(fd.get(), size) == 0);
    expect_right_within(mount, soon);
    void* const pages = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    REQUIRE(pages != MAP_FAILED);
    std::fill_n(static_cast<char*>(pages), size, 'm');
    REQUIRE(::msync(pages, size, MS_SYNC) == 0);
    REQUIRE(::munmap(pages, size) == 0);
  }
  const int64_t want = naive_count(mount.lower()).at("").rdisk;
  CHECK(want >= static_cast<int64_t>(size));
  expect_counter_soon(mount.at(), "rdisk", want);
}

TEST_CASE("blocks that move when the data of others is written back are counted then") {
  if (!can_mount()) return;
  const FoldersApart folders;
  const Mount mount(folders, {.options = watched_only});
  for (int i = 0; i < 20; ++i) {
    // Many extents, whose tree takes blocks of its own.
    std::ofstream file(mount.lower("file" + std::to_string(i)));
    for (int k = 0; k < 400; ++k)
      file.seekp(k * 12'288) << "data";
  }
  expect_right_within(mount, soon);
  check_counters(mount);
}

TEST_CASE("changes on a filesystem mounted below the source are watched once it was scanned") {
  if (!can_mount()) return;
  struct Nested {
    explicit Nested(std::string at) : path(std::move(at)) {
      REQUIRE(::mkdir(path.c_str(), 0755) == 0);
      REQUIRE(::mount("nested", path.c_str(), "tmpfs", 0, nullptr) == 0);
    }
    ~Nested() { ::umount2(path.c_str(), MNT_DETACH); }
    const std::string path;
  };
  const FoldersApart folders;
  const Nested nested(folders.source("nested"));
  REQUIRE(::mkdir((nested.path + "/folder").c_str(), 0755) == 0);
  const Mount mount(folders, {.options = watched_only});
  std::this_thread::sleep_for(1s);  // it is looked for new filesystems twice a second
  write_file(nested.path + "/folder/file", "on another filesystem");
  expect_counter_soon(mount.at(), "rbytes", 21);
  append(nested.path + "/folder/file", ", once more");
  expect_counter_soon(mount.at(), "rbytes", 32);
}

TEST_CASE("a storm of changes by others and through the mount ends exact") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(21);
  INFO("seed " << seed);
  const FoldersApart folders;
  make_fake_tree(folders.source(), TreeShape::mixed, seed, 600);
  for (const char* path : {"others", "ours", "both", "both/1", "both/2"})
    REQUIRE(::mkdir(folders.source(path).c_str(), 0777) == 0);
  const Mount mount(folders, {.options = watched_only});
  std::atomic<bool> over = false;
  std::vector<std::thread> threads;
  const auto change = [&](const std::string& below, uint64_t number) {
    threads.emplace_back([&over, below, number, seed] {
      RandomChanges changes(below, seed + number);
      while (!over) {
        changes.step();
        std::this_thread::sleep_for(200us);
      }
      changes.close_all();
    });
  };
  change(mount.at("ours"), 1);
  change(mount.lower("others"), 2);
  change(mount.at("both"), 3);
  change(mount.lower("both"), 4);
  threads.emplace_back([&] {
    while (!over) {
      run({"cp", "-a", mount.lower("ours"), mount.lower("both/1/copy")});
      run({"cp", "-al", mount.lower("both/1/copy"), mount.lower("both/2/links")});
      run({"rm", "-rf", mount.lower("both/1/copy"), mount.lower("both/2/links")});
    }
  });
  std::this_thread::sleep_for(6s);
  over = true;
  for (std::thread& thread : threads)
    thread.join();
  const auto start = Clock::now();
  expect_right_within(mount, 60s);  // with an audit, and a rest from the one before
  const auto passed = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  expect_all_right_within(mount, soon);
  check_counters(mount);
  WARN("right " << passed.count() << " ms after the last change");
}

TEST_CASE("our own changes make nothing suspect") {
  if (!can_mount()) return;
  const uint64_t seed = seed_or(22);
  INFO("seed " << seed);
  const FoldersApart folders;
  const Mount mount(folders, {.options = watched_only});
  std::atomic<bool> over = false;
  std::thread writer([&] {
    RandomChanges changes(mount.at(), seed);
    while (!over)
      changes.step();
  });
  const auto end = Clock::now() + 5s;
  uint64_t queries = 0;
  uint64_t others = 0;
  for (; Clock::now() < end; ++queries)
    if (state_of(mount) != "exact") ++others;
  over = true;
  writer.join();
  CHECK(queries > 1000);
  CHECK(others == 0);
  check_counters(mount, true);
}

TEST_CASE("with watch=off nothing is seen of a change behind the mount") {
  if (!can_mount()) return;
  const FoldersApart folders;
  const Mount mount(folders, {.options = "watch=off,audit_iops=0"});
  write_file(mount.lower("file"), "content");
  std::this_thread::sleep_for(soon);
  CHECK(counter(mount.at(), "rbytes") == 0);
}

TEST_CASE("events that the kernel has lost are made good by an audit") {
  if (!can_mount()) return;
  size_t events_max = 0;
  std::ifstream("/proc/sys/fs/fanotify/max_queued_events") >> events_max;
  REQUIRE(events_max > 0);
  REQUIRE(events_max < 100'000);
  const FoldersApart folders;
  const Mount mount(folders, {.options = watched_only});
  // Events of one directory become one: as many directories as there may be events, and some.
  const size_t directories = events_max + 1000;
  for (size_t i = 0; i < directories; ++i)
    REQUIRE(::mkdir(mount.lower(std::to_string(i)).c_str(), 0755) == 0);
  expect_right_within(mount, 60s);
  mount.daemon().signal(SIGSTOP);
  for (size_t i = 0; i < directories; ++i)
    write_file(mount.lower(std::to_string(i) + "/file"), "content");
  mount.daemon().signal(SIGCONT);
  expect_right_within(mount, 60s);
  CHECK(read_xattr(mount.at(), "user.tally.audit").value().starts_with("finished="));
}
