#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include <catch2/catch.hpp>

#include "tests/mount/parity.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

/// Bytes that tell their own position, so that data in the wrong place is noticed.
std::string pattern(size_t length, size_t start = 0) {
  std::string bytes(length, '\0');
  for (size_t i = 0; i < length; ++i) {
    bytes[i] = static_cast<char>('a' + ((start + i) * 7 + (start + i) / 4096) % 26);
  }
  return bytes;
}

void record_blocks(Recorder& recorder, int fd) {
  struct stat st{};
  recorder.call("fstat", ::fstat(fd, &st));
  recorder.note("blocks", st.st_blocks);
  recorder.note("size", st.st_size);
}

/// Where data and holes are, by SEEK_DATA and SEEK_HOLE from the start of every 4 KiB block.
void record_holes(Recorder& recorder, int fd, off_t end) {
  for (off_t at = 0; at <= end; at += 4096) {
    recorder.call("data after " + std::to_string(at), ::lseek(fd, at, SEEK_DATA));
    recorder.call("hole after " + std::to_string(at), ::lseek(fd, at, SEEK_HOLE));
  }
}

}  // namespace

TEST_CASE("reads and writes at any place and of any length move the native bytes") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    const UniqueFd fd = recorder.fd("create", ::open("file", O_RDWR | O_CREAT, 0644));
    for (const size_t length : {0UL, 1UL, 511UL, 4096UL, 4097UL, 100'000UL, 3UL << 20}) {
      for (const off_t offset : {0L, 1L, 4095L, 4096L, 1'000'001L}) {
        const std::string bytes = pattern(length, static_cast<size_t>(offset));
        recorder.call("pwrite", ::pwrite(fd.get(), bytes.data(), length, offset));
      }
    }
    recorder.content("file");
    for (const size_t length : {0UL, 1UL, 513UL, 4096UL, 70'000UL, 5UL << 20}) {
      for (const off_t offset : {0L, 7L, 4096L, 4'000'000L, 4'145'728L, 9'000'000L}) {
        std::string bytes(length, '\0');
        const long got = recorder.call("pread", ::pread(fd.get(), bytes.data(), length, offset));
        recorder.note("bytes", bytes.substr(0, static_cast<size_t>(std::max(got, 0L))));
      }
    }
    char one[10] = {};
    char two[20] = {};
    struct iovec parts[] = {{one, sizeof one}, {two, sizeof two}};
    recorder.call("preadv", ::preadv(fd.get(), parts, 2, 12345));
    recorder.note("one", std::string(one, sizeof one));
    recorder.note("two", std::string(two, sizeof two));
    recorder.call("pwritev", ::pwritev(fd.get(), parts, 2, 54321));
    recorder.content("file");
    record_blocks(recorder, fd.get());
  });
}

TEST_CASE("appending writers each add at the end, wherever they were") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    const UniqueFd one = recorder.fd("one", ::open("log", O_WRONLY | O_CREAT | O_APPEND, 0644));
    const UniqueFd two = recorder.fd("two", ::open("log", O_RDWR | O_APPEND));
    for (int i = 0; i < 20; ++i) {
      const std::string line = "line " + std::to_string(i) + "\n";
      recorder.call("write", ::write((i % 2 == 0 ? one : two).get(), line.data(), line.size()));
      recorder.call("position", ::lseek(one.get(), 0, SEEK_CUR));
    }
    // Linux appends even with pwrite (BUGS of pwrite(2)).
    recorder.call("pwrite", ::pwrite(one.get(), "start", 5, 0));
    recorder.call("clear O_APPEND", ::fcntl(one.get(), F_SETFL, 0));
    recorder.call("pwrite", ::pwrite(one.get(), "START", 5, 0));
    recorder.content("log");
  });
}

TEST_CASE("truncation by path and by descriptor, up and down, gives the native file and errors") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("file", pattern(10'000));
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDWR));
    for (const off_t length : {5000L, 0L, 4096L, 100'000L, 99'999L, 1L, -1L}) {
      recorder.call("ftruncate", ::ftruncate(fd.get(), length));
      record_blocks(recorder, fd.get());
      recorder.call("pwrite", ::pwrite(fd.get(), "tail", 4, 3000));
      recorder.call("truncate", ::truncate("file", length / 2));
      record_blocks(recorder, fd.get());
      recorder.content("file");
    }
    ::mkdir("directory", 0755);
    ::symlink("file", "link");
    ::mkfifo("fifo", 0644);
    for (const char* target : {"directory", "link", "fifo", "missing", "file/below", ""}) {
      recorder.call(std::string("truncate ") + target, ::truncate(target, 10));
    }
    recorder.call("beyond the largest file", ::truncate("file", INT64_MAX));
    recorder.stat("file");
  });
}

TEST_CASE("sparse files have their holes where they have them natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    const UniqueFd fd = recorder.fd("create", ::open("sparse", O_RDWR | O_CREAT, 0644));
    recorder.call("grow", ::ftruncate(fd.get(), 64 << 10));
    for (const off_t offset : {8192L, 40'960L}) {
      recorder.call("pwrite", ::pwrite(fd.get(), pattern(4096).data(), 4096, offset));
    }
    recorder.call("fsync", ::fsync(fd.get()));
    record_holes(recorder, fd.get(), 68 << 10);
    record_blocks(recorder, fd.get());
    recorder.call("SEEK_END", ::lseek(fd.get(), -5, SEEK_END));
    recorder.call("SEEK_CUR", ::lseek(fd.get(), 3, SEEK_CUR));
    recorder.call("before the start", ::lseek(fd.get(), -1, SEEK_SET));
    recorder.call("whence", ::lseek(fd.get(), 0, 99));
  });
}

TEST_CASE("fallocate's forwarded modes work natively and its errors are native") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    const UniqueFd fd = recorder.fd("create", ::open("file", O_RDWR | O_CREAT, 0644));
    const auto allocate = [&](const char* what, int mode, off_t offset, off_t length) {
      recorder.call(what, ::fallocate(fd.get(), mode, offset, length));
      record_blocks(recorder, fd.get());
    };
    allocate("grow", 0, 0, 100'000);
    allocate("keep size", FALLOC_FL_KEEP_SIZE, 100'000, 400'000);
    recorder.call("pwrite", ::pwrite(fd.get(), pattern(100'000).data(), 100'000, 0));
    recorder.call("fsync", ::fsync(fd.get()));
    allocate("punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 16'384);
    allocate("zero", FALLOC_FL_ZERO_RANGE, 40'960, 4096);
    allocate("zero beyond the end", FALLOC_FL_ZERO_RANGE, 200'000, 4096);
    allocate("punch without keep size", FALLOC_FL_PUNCH_HOLE, 0, 4096);
    allocate("no length", 0, 0, 0);
    allocate("negative", 0, -1, 10);
    allocate("beyond the largest file", 0, 0, INT64_MAX);
    recorder.content("file");
  });
}

TEST_CASE("copy_file_range copies within the mount as it does natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("from", pattern(300'000));
    const UniqueFd from = recorder.fd("from", ::open("from", O_RDONLY));
    const UniqueFd to = recorder.fd("to", ::open("to", O_RDWR | O_CREAT, 0644));
    const auto copy = [&](const char* what, off_t source, off_t target, size_t length) {
      recorder.call(what, ::copy_file_range(from.get(), &source, to.get(), &target, length, 0));
      recorder.note("target offset", target);
      recorder.stat("to", to.get());
    };
    copy("start", 0, 0, 100'000);
    copy("far away", 5, 1'000'000, 4096);
    copy("past the source's end", 299'000, 50, 10'000);
    copy("at the source's end", 300'000, 50, 10'000);
    copy("nothing", 0, 0, 0);
    off_t offset = 0;
    recorder.call("into a reader",
                  ::copy_file_range(to.get(), &offset, from.get(), nullptr, 10, 0));
    off_t source = 0;
    off_t target = 100;
    recorder.call("overlap in one file",
                  ::copy_file_range(to.get(), &source, to.get(), &target, 4096, 0));
    recorder.content("to");
  });
}

TEST_CASE("shared and private mappings show and keep the native bytes") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("file", pattern(20'000));
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDWR));
    const auto map = [&](int flags) {
      void* address = ::mmap(nullptr, 20'000, PROT_READ | PROT_WRITE, flags, fd.get(), 0);
      recorder.call("mmap", address == MAP_FAILED ? -1 : 0);
      return static_cast<char*>(address);
    };
    char* shared = map(MAP_SHARED);
    char* private_copy = map(MAP_PRIVATE);
    if (shared == MAP_FAILED || private_copy == MAP_FAILED) return;
    private_copy[0] = 'P';
    shared[1] = 'S';
    shared[15'000] = 'T';
    recorder.call("pwrite", ::pwrite(fd.get(), "W", 1, 5000));
    recorder.note("write seen in the mapping", shared[5000]);
    recorder.call("msync", ::msync(shared, 20'000, MS_SYNC));
    recorder.content("file");
    recorder.note("private", std::string(private_copy, 8));
    ::munmap(shared, 20'000);
    ::munmap(private_copy, 20'000);
    recorder.content("file");
    const UniqueFd reader = recorder.fd("reader", ::open("file", O_RDONLY));
    recorder.call(
        "write through a reader",
        ::mmap(nullptr, 4096, PROT_WRITE, MAP_SHARED, reader.get(), 0) == MAP_FAILED ? -1 : 0);
  });
}

TEST_CASE("aligned O_DIRECT reads and writes move the native bytes") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    const UniqueFd fd = recorder.fd("open", ::open("file", O_RDWR | O_CREAT | O_DIRECT, 0644));
    constexpr size_t length = 1 << 20;
    const std::unique_ptr<char, decltype(&std::free)> buffer(
        static_cast<char*>(std::aligned_alloc(4096, length)), std::free);
    pattern(length).copy(buffer.get(), length);
    recorder.call("write", ::pwrite(fd.get(), buffer.get(), length, 0));
    recorder.call("write", ::pwrite(fd.get(), buffer.get(), 8192, 2 << 20));
    recorder.call("read", ::pread(fd.get(), buffer.get(), 65'536, 4096));
    recorder.note("bytes", std::string(buffer.get(), 65'536));
    recorder.call("read at the end", ::pread(fd.get(), buffer.get(), 65'536, (2 << 20) + 4096));
    const UniqueFd buffered = recorder.fd("buffered", ::open("file", O_RDWR));
    recorder.call("buffered write", ::pwrite(buffered.get(), "mixed", 5, 10'000));
    recorder.call("direct read", ::pread(fd.get(), buffer.get(), 8192, 8192));
    recorder.note("bytes", std::string(buffer.get(), 8192));
    recorder.content("file");
  });
}

TEST_CASE("flock and POSIX locks exclude each other as natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  check_parity(folders, mount, [](Recorder& recorder) {
    write_file("file", "content");
    const UniqueFd one = recorder.fd("one", ::open("file", O_RDWR));
    const UniqueFd two = recorder.fd("two", ::open("file", O_RDWR));
    recorder.call("shared", ::flock(one.get(), LOCK_SH));
    recorder.call("shared too", ::flock(two.get(), LOCK_SH | LOCK_NB));
    recorder.call("upgrade", ::flock(two.get(), LOCK_EX | LOCK_NB));
    recorder.call("unlock", ::flock(one.get(), LOCK_UN));
    recorder.call("upgrade", ::flock(two.get(), LOCK_EX | LOCK_NB));
    recorder.call("excluded", ::flock(one.get(), LOCK_SH | LOCK_NB));
    struct flock range{};
    range.l_type = F_WRLCK;
    range.l_len = 3;
    // Open file description locks conflict inside one process, so that no second one is needed.
    recorder.call("lock a range", ::fcntl(one.get(), F_OFD_SETLK, &range));
    recorder.call("locked", ::fcntl(two.get(), F_OFD_SETLK, &range));
    struct flock asked = range;
    recorder.call("who", ::fcntl(two.get(), F_OFD_GETLK, &asked));
    recorder.note("type", asked.l_type);
    range.l_start = 3;
    recorder.call("the next range", ::fcntl(two.get(), F_OFD_SETLK, &range));
    range.l_type = F_UNLCK;
    recorder.call("unlock", ::fcntl(two.get(), F_SETLK, &range));
  });
}
