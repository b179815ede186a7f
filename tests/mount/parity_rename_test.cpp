#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include <catch2/catch.hpp>

#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

void make_one_of_each(const std::string& prefix) {
  write_file(prefix + "file", prefix);
  ::mkdir((prefix + "empty").c_str(), 0755);
  ::mkdir((prefix + "full").c_str(), 0755);
  ::mkdir((prefix + "full/sub").c_str(), 0755);
  write_file(prefix + "full/sub/inside", prefix + "inside");
  ::symlink("target", (prefix + "link").c_str());
  ::mkfifo((prefix + "fifo").c_str(), 0644);
  write_file(prefix + "shared", prefix + "shared");
  ::link((prefix + "shared").c_str(), (prefix + "shared again").c_str());
}

constexpr const char* kinds[] = {"file",       "empty",   "full",         "link",
                                 "fifo",       "shared",  "shared again", "missing",
                                 "missing/in", "file/in", "full/sub"};

struct RenameFlags {
  const char* name;
  unsigned value;
};

constexpr RenameFlags all_flags[] = {{"plain", 0},
                                     {"NOREPLACE", RENAME_NOREPLACE},
                                     {"EXCHANGE", RENAME_EXCHANGE},
                                     {"WHITEOUT", RENAME_WHITEOUT},
                                     {"WHITEOUT|NOREPLACE", RENAME_WHITEOUT | RENAME_NOREPLACE},
                                     {"EXCHANGE|NOREPLACE", RENAME_EXCHANGE | RENAME_NOREPLACE},
                                     {"unknown", 1U << 10}};

/// Renames every kind onto every kind in fresh surroundings and records what is left.
void rename_all(Recorder& recorder, const RenameFlags& flags, const std::string& from_prefix,
                const std::string& to_prefix) {
  for (const char* from : kinds) {
    for (const char* to : kinds) {
      ::mkdir("round", 0755);
      if (::chdir("round") != 0) ::_exit(1);
      ::mkdir("one", 0755);
      ::mkdir("two", 0755);
      make_one_of_each("one/");
      make_one_of_each("two/");
      const std::string what = std::string(flags.name) + " " + from + " to " + to;
      recorder.call(what, ::renameat2(AT_FDCWD, (from_prefix + from).c_str(), AT_FDCWD,
                                      (to_prefix + to).c_str(), flags.value));
      for (const std::string& line : describe_tree("."))
        recorder.note("left", line);
      if (::chdir("..") != 0) ::_exit(1);
      std::filesystem::remove_all("round");
    }
  }
}

}  // namespace

TEST_CASE("rename of every kind onto every kind in another directory ends natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  for (const RenameFlags& flags : all_flags) {
    check_parity(folders, mount,
                 [&](Recorder& recorder) { rename_all(recorder, flags, "one/", "two/"); });
  }
}

TEST_CASE("rename of every kind onto every kind in the same directory ends natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  for (const RenameFlags& flags : {all_flags[0], all_flags[1], all_flags[2]}) {
    check_parity(folders, mount,
                 [&](Recorder& recorder) { rename_all(recorder, flags, "one/", "one/"); });
  }
}

TEST_CASE("a directory moves neither into itself nor onto its own parent") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each("");
    for (const unsigned flags : {0U, 0U + RENAME_NOREPLACE, 0U + RENAME_EXCHANGE}) {
      const auto move = [&](const char* from, const char* to) {
        recorder.call(std::string(from) + " to " + to,
                      ::renameat2(AT_FDCWD, from, AT_FDCWD, to, flags));
      };
      move("full", "full/sub/new");
      move("full", "full/new");
      move("full/sub", "full");
      move("full", "full/sub");
      move("full", "full");
      move(".", "new");
      move("full/..", "new");
      move("empty/", "new/");
      move("new/", "empty/");
      move("file/", "new");
      move("file", "new/");
    }
    recorder.call("another filesystem", ::rename("file", "/proc/new"));
  });
}

TEST_CASE("open files and working directories follow a rename") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each("");
    const UniqueFd file = recorder.fd("file", ::open("full/sub/inside", O_RDWR));
    const UniqueFd directory = recorder.fd("sub", ::open("full/sub", O_RDONLY | O_DIRECTORY));
    recorder.call("move", ::rename("full", "empty/moved"));
    recorder.call("write", ::pwrite(file.get(), "MOVED", 5, 0));
    recorder.call("create", ::mkdirat(directory.get(), "made after the move", 0755));
    recorder.stat("empty/moved/sub/made after the move");
    recorder.content("empty/moved/sub/inside");
    const UniqueFd up = recorder.fd("up", ::openat(directory.get(), "../..", O_RDONLY));
    recorder.stat("the new grandparent", up.get());
    write_file("victim", "overwritten while open");
    const UniqueFd victim = recorder.fd("victim", ::open("victim", O_RDWR));
    recorder.call("overwrite", ::rename("empty/moved/sub/inside", "victim"));
    recorder.stat("victim", victim.get());
    recorder.call("write to it", ::pwrite(victim.get(), "still alive", 11, 0));
    recorder.content("victim");
    ::mkdir("removed", 0755);
    const UniqueFd removed = recorder.fd("removed", ::open("removed", O_RDONLY | O_DIRECTORY));
    recorder.call("overwrite a directory",
                  ::rename("empty/moved/sub/made after the move", "removed"));
    recorder.call("create in it", ::mkdirat(removed.get(), "x", 0755));
    recorder.fd("open in it", ::openat(removed.get(), "x", O_CREAT | O_WRONLY, 0644));
  });
}
