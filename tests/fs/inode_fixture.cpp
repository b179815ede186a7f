#include "tests/fs/inode_fixture.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <array>
#include <exception>
#include <system_error>
#include <thread>

#include "core/hot_path_guard.hpp"

namespace tally::test {

namespace {

using Capabilities = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

void require(bool succeeded, const std::string& what) {
  if (!succeeded) throw std::system_error(errno, std::generic_category(), what);
}

Capabilities thread_capabilities(__user_cap_header_struct& header) {
  Capabilities capabilities{};
  require(::syscall(SYS_capget, &header, capabilities.data()) == 0, "capget");
  return capabilities;
}

}  // namespace

void run_without_capability(int capability, const std::function<void()>& work) {
  std::exception_ptr thrown;
  std::thread([&] {
    try {
      __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
      Capabilities capabilities = thread_capabilities(header);
      capabilities[static_cast<unsigned>(capability) / 32].effective &=
          ~(1U << static_cast<unsigned>(capability) % 32);
      require(::syscall(SYS_capset, &header, capabilities.data()) == 0, "capset");
      work();
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  if (thrown) std::rethrow_exception(thrown);
}

bool may_open_by_handle() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return (thread_capabilities(header)[0].effective & 1U << CAP_DAC_READ_SEARCH) != 0;
}

InodeFixture::InodeFixture(uint32_t descriptors, uint32_t capacity, Reopen reopen)
    : budget(descriptors) {
  const UniqueFd source(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto construct = [&] {
    table = std::make_unique<fs::InodeTable>(source.get(), capacity, budget, tree);
  };
  // The table finds out for itself that it can't use handles.
  if (reopen == Reopen::by_name)
    run_without_capability(CAP_DAC_READ_SEARCH, construct);
  else
    construct();
}

Result<fs::PinnedInode> InodeFixture::find(const fs::PinnedInode& parent, const std::string& name) {
  TALLY_HOT_PATH("find an inode");
  Result<CountedFd> fd = table->open_descriptor(
      [&] { return ::openat(parent.fd(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC); });
  if (!fd) return std::unexpected(fd.error());
  const Result<FileStat> stat = stat_fd(fd->get());
  if (!stat) return std::unexpected(stat.error());
  return table->find_or_create(std::move(*fd), *stat, &*parent, name.c_str());
}

fs::NodeId InodeFixture::lookup(const fs::PinnedInode& parent, const std::string& name) {
  const fs::PinnedInode inode = find(parent, name).value();
  table->add_lookup(*inode);
  return inode->id();
}

void InodeFixture::unlink(const std::string& name) {
  const fs::PinnedInode directory = root();
  const fs::PinnedInode victim = find(directory, name).value();
  struct stat status{};
  require(::fstatat(victim.fd(), "", &status, AT_EMPTY_PATH) == 0, "fstatat");
  require(::unlinkat(directory.fd(), name.c_str(), S_ISDIR(status.st_mode) ? AT_REMOVEDIR : 0) == 0,
          "unlinkat");
  require(::fstatat(victim.fd(), "", &status, AT_EMPTY_PATH) == 0, "fstatat");
  if (status.st_nlink == 0 || victim->is_directory()) table->unlinked(victim);
}

void InodeFixture::evict_all() {
  std::vector<CountedFd> taken;
  while (true) {
    auto fd = table->open_descriptor([] { return ::open("/", O_PATH | O_CLOEXEC); });
    if (!fd) return;
    taken.push_back(std::move(*fd));
  }
}

void InodeFixture::create_file(const std::string& name) const {
  const UniqueFd fd(::open(path(name).c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
  require(static_cast<bool>(fd), "create " + name);
}

void InodeFixture::create_directory(const std::string& name) const {
  require(::mkdir(path(name).c_str(), 0755) == 0, "mkdir " + name);
}

}  // namespace tally::test
