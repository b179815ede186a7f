#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <set>

#include <catch2/catch.hpp>

#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

using DirectoryStream = std::unique_ptr<DIR, int (*)(DIR*)>;

DirectoryStream open_directory(const char* path) { return {::opendir(path), ::closedir}; }

constexpr int many = 1000;

std::string file_name(int number) {
  // Long names, so that a listing takes many replies.
  return "entry-" + std::to_string(number) + "-" + std::string(200, 'n');
}

void make_many(Recorder&) {
  ::mkdir("big", 0755);
  for (int i = 0; i < many; ++i) {
    const std::string path = "big/" + file_name(i);
    if (i % 10 == 0) {
      ::mkdir(path.c_str(), 0755);
    } else {
      ::mknod(path.c_str(), S_IFREG | 0644, 0);
    }
  }
}

/// Names and types from where the stream stands to its end, sorted; a name seen twice shows.
std::multiset<std::string> rest_of(DIR* stream) {
  std::multiset<std::string> names;
  while (const dirent* entry = ::readdir(stream)) {
    names.insert(std::string(entry->d_name) + " type " + std::to_string(entry->d_type));
  }
  return names;
}

}  // namespace

TEST_CASE("readdir lists every name once, with its type, in a big directory") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_many(recorder);
    const DirectoryStream stream = open_directory("big");
    for (int round = 0; round < 2; ++round) {
      for (const std::string& name : rest_of(stream.get()))
        recorder.note("entry", name);
      recorder.note("after the end", ::readdir(stream.get()) == nullptr);
      ::rewinddir(stream.get());
    }
  });
}

TEST_CASE("telldir and seekdir come back to the same entry, and read on from there") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_many(recorder);
    const DirectoryStream stream = open_directory("big");
    std::map<long, std::string> name_at;
    for (;;) {
      const long position = ::telldir(stream.get());
      const dirent* entry = ::readdir(stream.get());
      if (entry == nullptr) break;
      name_at[position] = entry->d_name;
    }
    recorder.note("positions", static_cast<int64_t>(name_at.size()));
    int64_t right = 0;
    for (const auto& [position, name] : name_at) {
      ::seekdir(stream.get(), position);
      const dirent* entry = ::readdir(stream.get());
      if (entry != nullptr && name == entry->d_name) ++right;
    }
    recorder.note("found again", right);
  });
}

TEST_CASE("a listing under way survives creation and deletion: untouched names come once") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_many(recorder);
    const DirectoryStream stream = open_directory("big");
    std::multiset<std::string> seen;
    for (int i = 0; i < 100; ++i) {
      if (const dirent* entry = ::readdir(stream.get())) seen.insert(entry->d_name);
    }
    for (int i = 1; i < many; i += 10)
      ::unlink(("big/" + file_name(i)).c_str());
    for (int i = 0; i < 200; ++i) {
      ::mknod(("big/new-" + std::to_string(i)).c_str(), S_IFREG | 0644, 0);
    }
    while (const dirent* entry = ::readdir(stream.get()))
      seen.insert(entry->d_name);
    int64_t once = 0;
    int64_t untouched = 0;
    for (int i = 0; i < many; ++i) {
      if (i % 10 == 1) continue;
      ++untouched;
      if (seen.count(file_name(i)) == 1) ++once;
    }
    recorder.note("untouched", untouched);
    recorder.note("seen once", once);
  });
}

TEST_CASE("deleting while listing empties a directory, as rm -r does it") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_many(recorder);
    const DirectoryStream stream = open_directory("big");
    while (const dirent* entry = ::readdir(stream.get())) {
      const std::string path = std::string("big/") + entry->d_name;
      if (entry->d_type == DT_DIR) {
        ::rmdir(path.c_str());
      } else {
        ::unlink(path.c_str());
      }
    }
    recorder.call("rmdir", ::rmdir("big"));
  });
}

TEST_CASE("opendir fails as natively, and an empty directory lists its two dots") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("file", "content");
    ::mkdir("empty", 0755);
    ::symlink("empty", "link");
    for (const char* target : {"file", "missing", "file/below"}) {
      recorder.fd(target, ::open(target, O_RDONLY | O_DIRECTORY));
    }
    for (const char* target : {"empty", "link"}) {
      const DirectoryStream stream = open_directory(target);
      for (const std::string& name : rest_of(stream.get()))
        recorder.note("entry", name);
    }
    const DirectoryStream removed = open_directory("empty");
    recorder.call("rmdir", ::rmdir("empty"));
    recorder.note("entries of a removed one", static_cast<int64_t>(rest_of(removed.get()).size()));
  });
}
