#include "tests/fs/filesystem_fixture.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <exception>
#include <thread>

#include "tests/naive_count.hpp"

namespace tally::test {

FilesystemFixture::FilesystemFixture()
    : source(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
      filesystem(source.get(), {}),
      scanner(filesystem.accounts().tree(), filesystem.accounts().links(), {}),
      caller{.uid = ::geteuid(), .gid = ::getegid(), .pid = ::getpid()} {
  scanner.run(source.get()).value();
  filesystem.start();
}

void FilesystemFixture::on_request_thread(const std::function<void()>& work) {
  std::exception_ptr thrown;
  std::thread([&] {
    try {
      work();
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  if (thrown) std::rethrow_exception(thrown);
}

fs::OpenFile& FilesystemFixture::create(const std::string& name) {
  const auto created = filesystem.create(caller, FUSE_ROOT_ID, name.c_str(), 0644, O_WRONLY);
  return *created.value().opened.file;
}

void FilesystemFixture::write_block(fs::OpenFile& file, off_t block) {
  const std::string bytes(4096, 'b');
  const auto kind = fs::Filesystem::WriteKind::at_offset;
  if (filesystem.write(caller, file, bytes, block * 4096, kind).value() != bytes.size())
    throw std::runtime_error("a short write");
}

int64_t FilesystemFixture::counted_bytes() {
  DirTree& tree = filesystem.accounts().tree();
  return tree.counters(tree.root()).rdisk.count * 512;
}

int64_t FilesystemFixture::bytes_on_disk() const {
  sync_filesystem(folder.path());
  return naive_count(folder.path()).at("").rdisk;
}

}  // namespace tally::test
