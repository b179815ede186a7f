#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <thread>

#include <catch2/catch.hpp>

#include "core/scanner.hpp"
#include "tests/core/scanned.hpp"
#include "tests/fake_tree.hpp"
#include "tests/skip.hpp"
#include "tests/temp_folder.hpp"

using namespace tally;
using namespace tally::test;
namespace stdfs = std::filesystem;

namespace {

/// While it lives this process has no privileges (glibc changes the user of all threads).
class Unprivileged {
 public:
  Unprivileged() : was_(::geteuid()) {
    constexpr uid_t nobody = 65534;
    if (was_ == 0 && ::seteuid(nobody) != 0) throw std::runtime_error("seteuid");
  }
  ~Unprivileged() { [[maybe_unused]] const int restored = ::seteuid(was_); }

 private:
  const uid_t was_;
};

std::set<std::string> paths_of(const Scanner& scanner, ScanErrorKind kind) {
  std::set<std::string> paths;
  for (std::size_t i = 0; i < scanner.errors().kept(kind); ++i)
    paths.emplace(scanner.errors().report(kind, i).path);
  return paths;
}

/// Scans with one worker that stands still at the first event for which `matches` holds, or at most
/// three events later, until `tamper` has returned: there is no room for more events.
std::unique_ptr<Scanned> scan_tampered(
    const std::string& directory,
    const std::function<bool(const ScanEvent&, const Scanner&)>& matches,
    const std::function<void(const ScanEvent&, const Scanner&)>& tamper,
    ScannerOptions options = {}) {
  ScanEvents events(2);
  options.threads = 1;
  options.events = &events;
  auto scanned = std::make_unique<Scanned>(options);
  const std::jthread consumer([&] {
    bool done = false;
    for (ScanEvent event; events.wait(event);) {
      if (done || !matches(event, scanned->scanner)) continue;
      tamper(event, scanned->scanner);
      done = true;
    }
  });
  scanned->scan(directory);
  return scanned;
}

}  // namespace

TEST_CASE("what an unprivileged user can't read is counted and reported, and the rest is exact") {
  const TempFolder folder("scan");
  stdfs::permissions(folder.path(), stdfs::perms(0755));
  const std::string& root = folder.path();
  stdfs::create_directories(root + "/open/closed/below");
  stdfs::create_directories(root + "/listable/below");
  std::ofstream(root + "/listable/file") << "12345";
  std::ofstream(root + "/open/file") << "123";
  sync_filesystem(root);
  stdfs::permissions(root + "/open/closed", stdfs::perms(0));
  stdfs::permissions(root + "/listable", stdfs::perms(0444));
  struct stat closed;
  REQUIRE(::stat((root + "/open/closed").c_str(), &closed) == 0);

  for (const unsigned queue_depth : {0u, 64u}) {
    INFO("queue depth " << queue_depth);
    const auto scanned = [&] {
      const Unprivileged unprivileged;
      return std::make_unique<Scanned>(root,
                                       ScannerOptions{.threads = 2, .queue_depth = queue_depth});
    }();
    CHECK(scanned->summary.errors_of(ScanErrorKind::unreadable) == 3);
    CHECK(paths_of(scanned->scanner, ScanErrorKind::unreadable) ==
          std::set<std::string>{"open/closed", "listable/below", "listable/file"});
    CHECK(scanned->scanner.errors().report(ScanErrorKind::unreadable, 0).error == Errno{EACCES});
    CHECK(scanned->at("").rsubdirs == 3);
    CHECK(scanned->at("").rbytes == Bytes{3});
    CHECK(scanned->at("open/closed").rdisk == Blocks{closed.st_blocks});
    CHECK(scanned->at("").rdisk == scanned->at("open").rdisk + scanned->at("listable").rdisk +
                                       Blocks{scanned->tree.node(scanned->tree.root()).own_blocks});
  }
  stdfs::permissions(root + "/open/closed", stdfs::perms(0755));
  stdfs::permissions(root + "/listable", stdfs::perms(0755));
}

TEST_CASE("files that vanish while their directory is read are counted and don't count") {
  const TempFolder folder("scan");
  for (int i = 0; i < 50; ++i)
    std::ofstream(folder.path() + "/" + std::to_string(i)) << "12345";
  const auto tampered = scan_tampered(
      folder.path(),
      [](const ScanEvent& event, const Scanner&) { return event.kind == ScanEvent::Kind::file; },
      [&](const ScanEvent&, const Scanner&) {
        for (int i = 0; i < 50; ++i)
          stdfs::remove(folder.path() + "/" + std::to_string(i));
      });
  const Scanned& scanned = *tampered;
  const DirCounters counters = scanned.at("");
  CHECK(scanned.summary.errors_of(ScanErrorKind::vanished) >= 40);
  CHECK(counters.files + int64_t(scanned.summary.errors_of(ScanErrorKind::vanished)) == 50);
  CHECK(counters.rbytes == Bytes{5 * counters.files});
  CHECK(scanned.scanner.errors().kept(ScanErrorKind::vanished) == ScanErrors::reports_max);
  CHECK_FALSE(scanned.tree.counters(scanned.tree.root()).suspect);
}

TEST_CASE("a directory that is gone or something else when it is opened is never followed") {
  struct Case {
    const char* what;
    ScanErrorKind kind;
    std::function<void(const std::string& victim, const std::string& elsewhere)> tamper;
  };
  const Case cases[] = {
      {"removed", ScanErrorKind::vanished,
       [](const std::string& victim, const std::string&) { stdfs::remove(victim); }},
      {"a symbolic link", ScanErrorKind::changed,
       [](const std::string& victim, const std::string& elsewhere) {
         stdfs::remove(victim);
         stdfs::create_directory_symlink(elsewhere, victim);
       }},
      {"a file", ScanErrorKind::changed,
       [](const std::string& victim, const std::string&) {
         stdfs::remove(victim);
         std::ofstream(victim) << "x";
       }},
      {"a fifo", ScanErrorKind::changed,
       [](const std::string& victim, const std::string&) {
         stdfs::remove(victim);
         ::mkfifo(victim.c_str(), 0644);
       }},
      {"another directory", ScanErrorKind::changed,
       [](const std::string& victim, const std::string& elsewhere) {
         stdfs::rename(victim, elsewhere + ".old");
         stdfs::rename(elsewhere, victim);
       }},
  };
  for (const Case& tampering : cases) {
    for (const unsigned queue_depth : {0u, 64u}) {
      for (const uint32_t descriptors : {0u, 1u}) {
        INFO("replaced by " << tampering.what << ", queue depth " << queue_depth << ", descriptors "
                            << descriptors);
        const TempFolder folder("scan");
        const TempFolder elsewhere("elsewhere");
        stdfs::create_directory(elsewhere.path() + "/new");
        std::ofstream(elsewhere.path() + "/new/secret") << std::string(1'000'000, 's');
        for (int i = 0; i < 10; ++i)
          stdfs::create_directories(folder.path() + "/top/" + std::to_string(i));
        // The victim is the one that is met first: nine more are met before any is opened.
        const auto tampered = scan_tampered(
            folder.path(),
            [](const ScanEvent& event, const Scanner& scanner) {
              return event.name && scanner.name(event.name) != std::string("top");
            },
            [&](const ScanEvent& event, const Scanner& scanner) {
              tampering.tamper(folder.path() + "/top/" + scanner.name(event.name),
                               elsewhere.path() + "/new");
            },
            {.queue_depth = queue_depth, .descriptors_max = descriptors});
        const Scanned& scanned = *tampered;
        CHECK(scanned.summary.errors_of(tampering.kind) == 1);
        CHECK(scanned.at("").rbytes == Bytes{});
        CHECK(scanned.at("top").subdirs == 9);
        CHECK(scanned.at("").rsubdirs == 10);
        CHECK(scanned.tree.size() == 11);
        CHECK(scanned.at("top").suspect == (tampering.kind == ScanErrorKind::changed));
        CHECK(scanned.at("").suspect == (tampering.kind == ScanErrorKind::changed));
      }
    }
  }
}

TEST_CASE("a symbolic link in the middle of a path that is opened from the root is not followed") {
  const TempFolder folder("scan");
  const TempFolder elsewhere("elsewhere");
  // The one descriptor that may be lent is the root's, until both sides are open. So the first side
  // is read by paths from the root. When what is in its "middle" is met, before any of it is
  // opened, "middle" becomes a link to where there are directories of the same names.
  constexpr int directories = 11;
  for (int i = 0; i < directories; ++i) {
    const std::string name = "/middle/" + std::to_string(i);
    stdfs::create_directories(folder.path() + "/left" + name);
    stdfs::create_directories(folder.path() + "/right" + name);
    stdfs::create_directories(elsewhere.path() + name);
    std::ofstream(elsewhere.path() + name + "/secret") << std::string(1'000'000, 's');
  }
  const auto tampered = scan_tampered(
      folder.path(),
      [](const ScanEvent& event, const Scanner& scanner) {
        return event.name && std::isdigit(*scanner.name(event.name)) != 0;
      },
      [&](const ScanEvent&, const Scanner&) {
        for (const char* side : {"/left", "/right"}) {
          const std::string middle = folder.path() + side + "/middle";
          stdfs::rename(middle, elsewhere.path() + side);
          stdfs::create_directory_symlink(elsewhere.path() + "/middle", middle);
        }
      },
      {.queue_depth = 0, .descriptors_max = 1});
  CHECK(tampered->at("").rbytes.count < 1'000'000);
  CHECK(tampered->summary.errors_of(ScanErrorKind::changed) == directories);
  CHECK(tampered->at("").suspect);
}

TEST_CASE("a scan of a directory in which everything moves ends, and its totals are consistent") {
  const uint64_t seed = seed_or(35);
  INFO("seed " << seed);
  for (int round = 0; round < 10; ++round) {
    const TempFolder folder("scan");
    make_fake_tree(folder.path(), TreeShape::mixed, seed, 300);
    const std::string moving = folder.path() + "/moving";
    stdfs::create_directory(moving);
    std::atomic<bool> stop = false;
    std::thread mover([&] {
      for (int i = 0; !stop; ++i) {
        std::error_code ignored;
        const std::string name = moving + "/" + std::to_string(i % 50);
        stdfs::create_directories(name + "/sub/subsub", ignored);
        std::ofstream(name + "/file") << "x";
        stdfs::create_hard_link(name + "/file", name + "/sub/link", ignored);
        stdfs::remove_all(moving + "/" + std::to_string((i + 25) % 50), ignored);
        stdfs::rename(name + "/sub", moving + "/renamed" + std::to_string(i % 7), ignored);
      }
    });
    const Scanned scanned(folder.path(), {.threads = 4});
    stop = true;
    mover.join();
    CHECK(scanned.at("").rsubdirs == int64_t(scanned.tree.size()) - 1);
    for (const auto& [path, counters] : scanned.counts()) {
      CHECK(counters.rfiles >= 0);
      CHECK(counters.rdisk >= counters.runique);
    }
  }
}

TEST_CASE("a directory that is moved while it is read makes its old and its new place suspect") {
  const TempFolder folder("scan");
  // Only one of them is moved: the one that is read first, to where has not been read yet.
  for (const char* place : {"/left", "/right"}) {
    stdfs::create_directories(folder.path() + place + "/in" + (place + 1));
    for (int i = 0; i < 20; ++i)
      std::ofstream(folder.path() + place + "/in" + (place + 1) + "/" + std::to_string(i))
          << (place == std::string("/left") ? "1" : "12");
  }
  const auto tampered = scan_tampered(
      folder.path(),
      [](const ScanEvent& event, const Scanner&) { return event.kind == ScanEvent::Kind::file; },
      [&](const ScanEvent& event, const Scanner&) {
        if (event.stat.size == Bytes{1}) {
          stdfs::rename(folder.path() + "/left/inleft", folder.path() + "/right/moved");
        } else {
          stdfs::rename(folder.path() + "/right/inright", folder.path() + "/left/moved");
        }
      });
  CHECK(tampered->summary.errors_of(ScanErrorKind::changed) == 1);
  CHECK(tampered->summary.errors_of(ScanErrorKind::duplicate) == 0);
  CHECK(tampered->at("").rsubdirs == 4);
  CHECK(tampered->at("left").suspect);
  CHECK(tampered->at("right").suspect);
  CHECK(tampered->at("").suspect);
}

TEST_CASE("a directory that is mounted a second time counts once and is reported") {
  constexpr int mounts = 8;  // some of them are met before, some after the directory itself
  const TempFolder folder("scan");
  for (int i = 0; i < mounts; ++i) {
    const std::string original = folder.path() + "/" + std::to_string(i);
    const std::string again = folder.path() + "/again" + std::to_string(i);
    stdfs::create_directories(original + "/below/subdir");
    stdfs::create_directory(again);
    std::ofstream(original + "/below/file") << "12345";
    if (::mount((original + "/below").c_str(), again.c_str(), nullptr, MS_BIND, nullptr) == 0)
      continue;
    return tally::test::skip("bind mounts need CAP_SYS_ADMIN");
  }
  const auto scanned = std::make_unique<Scanned>(folder.path(), ScannerOptions{.threads = 2});
  for (int i = 0; i < mounts; ++i)
    ::umount2((folder.path() + "/again" + std::to_string(i)).c_str(), MNT_DETACH);
  CHECK(scanned->summary.errors_of(ScanErrorKind::duplicate) == mounts);
  CHECK(scanned->at("").rbytes == Bytes{5 * mounts});
  CHECK(scanned->at("").rsubdirs == 3 * mounts);
  CHECK_FALSE(scanned->tree.counters(scanned->tree.root()).suspect);
}

TEST_CASE("directories beyond the tree's capacity are reported, and their parents are suspect") {
  const TempFolder folder("scan");
  for (int i = 0; i < 20; ++i)
    stdfs::create_directories(folder.path() + "/top/" + std::to_string(i));
  const Scanned scanned(folder.path(), {.threads = 2}, 10);
  CHECK(scanned.summary.errors_of(ScanErrorKind::no_room) == 12);
  CHECK(scanned.at("").rsubdirs == 9);
  CHECK(scanned.at("top").suspect);
  CHECK(scanned.at("").suspect);
}

TEST_CASE("hard links beyond capacity count once for each name rather than not at all") {
  const TempFolder folder("scan");
  for (int i = 0; i < 4; ++i) {
    const std::string file = folder.path() + "/" + std::to_string(i);
    std::ofstream(file) << "12345";
    stdfs::create_hard_link(file, file + "link");
  }
  const Scanned scanned(folder.path(), {}, 10, 2);
  CHECK(scanned.summary.errors_of(ScanErrorKind::no_room) == 4);
  CHECK(scanned.at("").rbytes == Bytes{(2 + 4) * 5});
  CHECK(scanned.at("").files == 8);
  CHECK(scanned.at("").suspect);
}
