#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

void make_one_of_each() {
  write_file("file", "content");
  ::mkdir("empty", 0755);
  ::mkdir("full", 0755);
  write_file("full/inside", "inside");
  ::symlink("file", "link to file");
  ::symlink("full", "link to directory");
  ::symlink("missing", "dangling link");
  ::mkfifo("fifo", 0644);
}

constexpr const char* targets[] = {"file",
                                   "empty",
                                   "full",
                                   "link to file",
                                   "link to directory",
                                   "dangling link",
                                   "fifo",
                                   "missing",
                                   "missing/below",
                                   "file/below",
                                   "",
                                   ".",
                                   "full/.",
                                   "full/..",
                                   "file/",
                                   "empty/",
                                   "link to directory/",
                                   "full/inside"};

}  // namespace

TEST_CASE("unlink, rmdir and remove end natively on every kind of target") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    for (const char* target : targets) {
      make_one_of_each();
      recorder.call(std::string("unlink ") + target, ::unlink(target));
      make_one_of_each();
      recorder.call(std::string("rmdir ") + target, ::rmdir(target));
      for (const char* left : targets)
        recorder.stat(left);
    }
  });
}

TEST_CASE("mkdir ends natively on every kind of target and with every mode") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each();
    for (const char* target : targets) {
      recorder.call(std::string("mkdir ") + target, ::mkdir(target, 0755));
    }
    ::mkdir("setgid", 0755);
    recorder.call("chown", ::chown("setgid", 0, 65534));
    recorder.call("chmod", ::chmod("setgid", 02775));
    for (const mode_t mask : {0U, 027U}) {
      ::umask(mask);
      for (const mode_t mode : {0U, 0700U, 0777U, 01777U, 02755U, 04755U}) {
        const std::string name = std::to_string(mask) + "-" + std::to_string(mode);
        recorder.call("mkdir", ::mkdir(name.c_str(), mode));
        recorder.stat(name);
        recorder.call("mkdir", ::mkdir(("setgid/" + name).c_str(), mode));
        recorder.stat("setgid/" + name);
        recorder.fd("create", ::open(("setgid/f" + name).c_str(), O_CREAT | O_WRONLY, mode));
        recorder.stat("setgid/f" + name);
      }
    }
    recorder.stat(".");
  });
}

TEST_CASE("link ends natively from and to every kind of target") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each();
    for (const char* from : targets) {
      for (const char* to : {"new", "empty/new", "file", "empty", "missing/new", "file/new", ""}) {
        for (const int flags : {0, AT_SYMLINK_FOLLOW}) {
          const std::string what =
              std::string(from) + " to " + to + (flags != 0 ? " following" : "");
          if (recorder.call(what, ::linkat(AT_FDCWD, from, AT_FDCWD, to, flags)) != 0) continue;
          recorder.stat(from);
          recorder.stat(to);
          recorder.call("unlink", ::unlink(to));
        }
      }
    }
    recorder.call("another filesystem", ::link("file", "/proc/new"));
  });
}

TEST_CASE("many names of one file come and go as natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("name0", "shared");
    for (int i = 1; i < 50; ++i) {
      recorder.call("link", ::link(("name" + std::to_string(i / 2)).c_str(),
                                   ("name" + std::to_string(i)).c_str()));
    }
    recorder.stat("name0");
    const UniqueFd fd = recorder.fd("open", ::open("name7", O_WRONLY | O_APPEND));
    recorder.call("append", ::write(fd.get(), " and grown", 10));
    for (int i = 0; i < 49; ++i) {
      recorder.call("unlink", ::unlink(("name" + std::to_string(i)).c_str()));
      recorder.stat("name49");
    }
    recorder.content("name49");
  });
}

TEST_CASE("symlink and readlink keep targets of every length byte by byte") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    for (const size_t length : {0UL, 1UL, 59UL, 60UL, 255UL, 1000UL, 4095UL, 4096UL}) {
      const std::string name = "link" + std::to_string(length);
      const std::string target(length, length % 2 == 0 ? '\xfe' : 't');
      recorder.call(name, ::symlink(target.c_str(), name.c_str()));
      char buffer[5000] = {};
      recorder.call("readlink", ::readlink(name.c_str(), buffer, sizeof buffer));
      recorder.note("target", buffer);
      recorder.call("short buffer", ::readlink(name.c_str(), buffer, 3));
      recorder.stat(name);
    }
    write_file("file", "content");
    char buffer[10];
    recorder.call("onto a file", ::symlink("x", "file"));
    recorder.call("readlink of a file", ::readlink("file", buffer, sizeof buffer));
    recorder.call("readlink of nothing", ::readlink("missing", buffer, sizeof buffer));
    recorder.call("below a file", ::symlink("x", "file/below"));
  });
}

TEST_CASE("mknod makes every type of node that it makes natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    for (const mode_t type : {0U, 0U + S_IFREG, 0U + S_IFIFO, 0U + S_IFSOCK, 0U + S_IFCHR,
                              0U + S_IFBLK, 0U + S_IFDIR, 0U + S_IFLNK}) {
      for (const mode_t permissions : {0600U, 04777U}) {
        const std::string name = std::to_string(type) + "-" + std::to_string(permissions);
        recorder.call(name, ::mknod(name.c_str(), type | permissions, makedev(7, 300)));
        recorder.stat(name);
        recorder.call("again", ::mknod(name.c_str(), type | permissions, makedev(7, 300)));
      }
    }
  });
}

TEST_CASE("names of any bytes up to 255 work, and 256 are too long") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    for (const std::string& name :
         {std::string(255, 'a'), std::string(256, 'a'), std::string(1024, 'a'),
          std::string(1025, 'a'), std::string("line\nbreak"), std::string("\xff\xfe\x01\x7f"),
          std::string(" "), std::string("..."), std::string("-rf"),
          std::string("user.tally.rbytes")}) {
      recorder.fd("create", ::open(name.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644));
      recorder.stat(name);
      recorder.call("mkdir", ::mkdir(("d" + name).c_str(), 0755));
      recorder.call("link", ::link(name.c_str(), ("l" + name).c_str()));
      recorder.call("symlink", ::symlink("x", ("s" + name).c_str()));
      recorder.call("rename", ::rename(name.c_str(), ("r" + name).c_str()));
      recorder.call("rename back", ::rename(("r" + name).c_str(), name.c_str()));
      recorder.call("rename", ::rename(name.c_str(), ("d" + name + "/" + name).c_str()));
      recorder.call("rmdir", ::rmdir(("d" + name).c_str()));
    }
  });
}
