// Calls of the parity suite that make and remove names, but for rename.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

SystemCall mkdir_call() {
  SystemCall call{"mkdir", {}};
  for (const mode_t mode : {0777U, 07755U, 0U}) {
    call.variants.push_back({"mkdir " + std::to_string(mode), [=](const Cell& cell) {
                               return told(::mkdir(cell.path.c_str(), mode));
                             }});
  }
  return call;
}

SystemCall mkfifo_call() {
  return {"mkfifo",
          {{"mkfifo", [](const Cell& cell) { return told(::mkfifo(cell.path.c_str(), 0666)); }},
           {"mkfifo with set-id bits",
            [](const Cell& cell) { return told(::mkfifo(cell.path.c_str(), 06777)); }}}};
}

SystemCall mknod_call() {
  SystemCall call{"mknod", {}};
  const auto add = [&](const char* name, mode_t mode, dev_t device) {
    call.variants.push_back(
        {name, [=](const Cell& cell) { return told(::mknod(cell.path.c_str(), mode, device)); }});
  };
  add("regular file", S_IFREG | 0666, 0);
  add("regular file with set-id bits", S_IFREG | 06777, 0);
  add("fifo", S_IFIFO | 0666, 0);
  add("socket", S_IFSOCK | 0666, 0);
  add("character device", S_IFCHR | 0666, makedev(1, 3));
  add("block device", S_IFBLK | 0660, makedev(240, 300'000));
  add("character device 0:0", S_IFCHR | 0666, 0);
  add("directory", S_IFDIR | 0755, 0);
  return call;
}

SystemCall symlink_call() {
  SystemCall call{"symlink", {}};
  for (const size_t length : {size_t{0}, size_t{1}, size_t{59}, size_t{60}, size_t{4095}}) {
    const std::string target(length, '\xe9');
    call.variants.push_back({"to " + std::to_string(length) + " bytes", [=](const Cell& cell) {
                               return told(::symlink(target.c_str(), cell.path.c_str()));
                             }});
  }
  return call;
}

SystemCall link_call() {
  SystemCall call{"link", {}};
  const auto add = [&](const char* name, int flags) {
    call.variants.push_back({name, [=](const Cell& cell) {
                               return told(::linkat(AT_FDCWD, cell.path.c_str(), AT_FDCWD,
                                                    cell.fresh().c_str(), flags));
                             }});
  };
  add("the target", 0);
  add("the target, following", AT_SYMLINK_FOLLOW);
  call.variants.push_back(
      {"to the target's name",
       [](const Cell& cell) { return told(::link(cell.other().c_str(), cell.path.c_str())); },
       true});
  call.variants.push_back({"an open file", [](const Cell& cell) {
                             return with_fd(cell.path, O_PATH, [&](int fd) {
                               const std::string self = "/proc/self/fd/" + std::to_string(fd);
                               return told(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD,
                                                    cell.fresh().c_str(), AT_SYMLINK_FOLLOW));
                             });
                           }});
  return call;
}

SystemCall unlink_call() {
  return {"unlink",
          {{"unlink", [](const Cell& cell) { return told(::unlink(cell.path.c_str())); }},
           {"unlink while it is open", [](const Cell& cell) {
              return with_fd(cell.path, O_PATH | O_NOFOLLOW, [&](int fd) {
                const std::string unlinked = told(::unlink(cell.path.c_str()));
                struct stat st{};
                const std::string seen = told(::fstat(fd, &st));
                return unlinked + " fstat " + seen + " links " + std::to_string(st.st_nlink);
              });
            }}}};
}

SystemCall rmdir_call() {
  return {"rmdir",
          {{"rmdir", [](const Cell& cell) { return told(::rmdir(cell.path.c_str())); }},
           {"unlinkat AT_REMOVEDIR",
            [](const Cell& cell) {
              return told(::unlinkat(AT_FDCWD, cell.path.c_str(), AT_REMOVEDIR));
            }},
           {"rmdir while it is open", [](const Cell& cell) {
              return with_fd(cell.path, O_RDONLY | O_DIRECTORY, [&](int fd) {
                const std::string removed = told(::rmdir(cell.path.c_str()));
                struct stat st{};
                std::string seen = " fstat " + told(::fstat(fd, &st));
                seen += " links " + std::to_string(st.st_nlink);
                seen += " mkdirat " + told(::mkdirat(fd, "below", 0755));
                return removed + seen + " openat " +
                       told_fd(::openat(fd, "below", O_CREAT | O_WRONLY, 0644));
              });
            }}}};
}

SystemCall bind_call() {
  return {"bind", {{"a socket", [](const Cell& cell) {
                      struct sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
                      if (cell.path.size() >= sizeof address.sun_path)
                        return std::string("too long");
                      std::memcpy(address.sun_path, cell.path.c_str(), cell.path.size());
                      // An empty path would be another kind of address.
                      if (cell.path.empty()) return std::string("no path");
                      const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                      const auto* any = reinterpret_cast<const struct sockaddr*>(&address);
                      const std::string bound = told(::bind(fd, any, sizeof address));
                      const std::string listening = told(::listen(fd, 1));
                      const int client = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                      const std::string met = told(::connect(client, any, sizeof address));
                      ::close(client);
                      ::close(fd);
                      return bound + " listen " + listening + " connect " + met;
                    }}}};
}

}  // namespace

std::vector<SystemCall> name_calls() {
  return {mkdir_call(), mkfifo_call(), mknod_call(), symlink_call(),
          link_call(),  unlink_call(), rmdir_call(), bind_call()};
}

}  // namespace tally::test
