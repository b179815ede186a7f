#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

struct Flag {
  const char* name;
  int value;
};

constexpr Flag access_modes[] = {
    {"O_RDONLY", O_RDONLY}, {"O_WRONLY", O_WRONLY}, {"O_RDWR", O_RDWR}};
constexpr Flag modifiers[] = {{"O_CREAT", O_CREAT},       {"O_EXCL", O_EXCL},
                              {"O_TRUNC", O_TRUNC},       {"O_APPEND", O_APPEND},
                              {"O_NOFOLLOW", O_NOFOLLOW}, {"O_DIRECTORY", O_DIRECTORY},
                              {"O_NONBLOCK", O_NONBLOCK}};

/// One thing of every kind that a name can stand for.
void make_one_of_each(Recorder&) {
  write_file("file", "content");
  ::mkdir("directory", 0755);
  ::symlink("file", "link to file");
  ::symlink("directory", "link to directory");
  ::symlink("missing target", "dangling link");
  ::symlink("loop", "loop");
  ::mkfifo("fifo", 0644);
  ::mknod("device", S_IFCHR | 0666, makedev(1, 3));
  ::mknod("socket", S_IFSOCK | 0666, 0);
}

constexpr const char* targets[] = {
    "file", "missing", "directory", "link to file", "link to directory", "dangling link",
    "loop", "device",  "socket",    "file/below",   "missing/below",     ""};

}  // namespace

TEST_CASE("open gives the native result for every flag combination on every kind of target") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    for (const Flag& access_mode : access_modes) {
      for (unsigned bits = 0; bits < 1U << std::size(modifiers); ++bits) {
        int flags = access_mode.value;
        std::string name = access_mode.name;
        for (size_t i = 0; i < std::size(modifiers); ++i) {
          if ((bits & 1U << i) == 0) continue;
          flags |= modifiers[i].value;
          name += std::string("|") + modifiers[i].name;
        }
        // Its meaning changed between kernels; it says nothing about a filesystem.
        if ((flags & O_CREAT) != 0 && (flags & O_DIRECTORY) != 0) continue;
        ::mkdir("round", 0755);
        if (::chdir("round") != 0) ::_exit(1);
        make_one_of_each(recorder);
        for (const char* target : targets) {
          const UniqueFd fd =
              recorder.fd(name + " " + target, ::open(target, flags | O_CLOEXEC, 0640));
          if (fd) recorder.stat(target, fd.get());
          ::unlink("missing");
          ::unlink("missing target");
        }
        recorder.stat("file");
        for (const char* target : targets)
          ::remove(target);
        ::unlink("fifo");
        if (::chdir("..") != 0) ::_exit(1);
        recorder.call("rmdir round", ::rmdir("round"));
      }
    }
  });
}

TEST_CASE("O_CREAT gives the mode less the umask, and reports an existing file unchanged") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    for (const mode_t mask : {0U, 022U, 027U, 077U}) {
      ::umask(mask);
      for (const mode_t mode : {0U, 0444U, 0644U, 0666U, 0755U, 04755U, 02755U, 01777U}) {
        const std::string name = "m" + std::to_string(mask) + "-" + std::to_string(mode);
        // A file made without write permission is still writable through this descriptor.
        const UniqueFd fd =
            recorder.fd(name, ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, mode));
        recorder.call("write", ::write(fd.get(), "text", 4));
        recorder.stat(name);
        recorder.fd("again", ::open(name.c_str(), O_RDWR | O_CREAT, 0600));
        recorder.fd("exclusively", ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
        recorder.stat(name);
      }
    }
  });
}

TEST_CASE("O_TMPFILE makes a nameless file that linkat can name, unless O_EXCL forbids it") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    for (const int exclusive : {0, O_EXCL}) {
      const UniqueFd fd = recorder.fd("open", ::open(".", O_TMPFILE | O_RDWR | exclusive, 0640));
      recorder.stat("nameless", fd.get());
      recorder.call("write", ::write(fd.get(), "nameless", 8));
      recorder.stat("nameless", fd.get());
      const std::string link = "/proc/self/fd/" + std::to_string(fd.get());
      const std::string name = exclusive != 0 ? "exclusive" : "named";
      recorder.call("linkat " + name,
                    ::linkat(AT_FDCWD, link.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW));
      recorder.call("write on", ::write(fd.get(), " and more", 9));
      recorder.stat("after", fd.get());
      recorder.content(name);
    }
    recorder.fd("read-only", ::open(".", O_TMPFILE | O_RDONLY, 0640));
    recorder.fd("in a file", ::open("named", O_TMPFILE | O_RDWR, 0640));
  });
}

TEST_CASE("O_PATH descriptors do what they do natively and refuse what they refuse natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    make_one_of_each(recorder);
    for (const char* target : targets) {
      const UniqueFd fd = recorder.fd(target, ::open(target, O_PATH | O_NOFOLLOW));
      if (!fd) continue;
      recorder.stat(target, fd.get());
      char byte = 0;
      recorder.call("read", ::read(fd.get(), &byte, 1));
      recorder.call("fchmod", ::fchmod(fd.get(), 0600));
      recorder.call("ftruncate", ::ftruncate(fd.get(), 0));
    }
    const UniqueFd file = recorder.fd("path", ::open("file", O_PATH));
    const std::string link = "/proc/self/fd/" + std::to_string(file.get());
    const UniqueFd reopened = recorder.fd("reopen", ::open(link.c_str(), O_RDWR));
    recorder.call("write", ::write(reopened.get(), "C", 1));
    recorder.content("file");
    recorder.call("unlink", ::unlink("file"));
    recorder.stat("unlinked", file.get());
    recorder.fd("reopen unlinked", ::open(link.c_str(), O_RDWR));
  });
}

TEST_CASE("a file that is unlinked while open lives until the last close") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("file", "before");
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDWR));
    recorder.call("unlink", ::unlink("file"));
    recorder.stat("file");
    recorder.stat("unlinked", fd.get());
    recorder.call("pwrite", ::pwrite(fd.get(), "AFTER and more", 14, 0));
    recorder.stat("unlinked", fd.get());
    recorder.call("ftruncate", ::ftruncate(fd.get(), 5));
    recorder.call("fchmod", ::fchmod(fd.get(), 0600));
    recorder.stat("unlinked", fd.get());
    char buffer[32] = {};
    recorder.call("pread", ::pread(fd.get(), buffer, sizeof buffer, 0));
    recorder.note("read", buffer);
    write_file("file", "another of the same name");
    recorder.stat("unlinked", fd.get());
    recorder.content("file");
  });
}

TEST_CASE("calls on descriptors of the wrong kind give the native errors") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("file", "content");
    char buffer[8];
    const UniqueFd reader = recorder.fd("reader", ::open("file", O_RDONLY));
    const UniqueFd writer = recorder.fd("writer", ::open("file", O_WRONLY));
    const UniqueFd directory = recorder.fd("directory", ::open(".", O_RDONLY | O_DIRECTORY));
    recorder.call("write to reader", ::write(reader.get(), "x", 1));
    recorder.call("truncate reader", ::ftruncate(reader.get(), 1));
    recorder.call("fallocate reader", ::fallocate(reader.get(), 0, 0, 10));
    recorder.call("read from writer", ::read(writer.get(), buffer, 8));
    recorder.call("read directory", ::read(directory.get(), buffer, 8));
    recorder.call("write directory", ::write(directory.get(), "x", 1));
    recorder.call("truncate directory", ::ftruncate(directory.get(), 1));
    recorder.call("truncate . by path", ::truncate(".", 1));
    recorder.call("fsync directory", ::fsync(directory.get()));
    recorder.call("fdatasync directory", ::fdatasync(directory.get()));
    recorder.call("fsync reader", ::fsync(reader.get()));
    recorder.call("fdatasync writer", ::fdatasync(writer.get()));
    recorder.call("closed", ::fsync(999));
    recorder.call("negative offset", ::pread(reader.get(), buffer, 8, -1));
    recorder.call("openat below a file", ::openat(reader.get(), "x", O_RDONLY));
  });
}
