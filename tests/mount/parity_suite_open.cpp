// Calls of the parity suite that open: open, creat, O_TMPFILE, opendir, chdir, execve.

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

/// What fstat tells of an open file.
std::string told_stat(int fd) {
  struct stat st{};
  if (::fstat(fd, &st) != 0) return "fstat " + told(-1);
  char text[100];
  ::snprintf(text, sizeof text, "mode %o %u:%u links %lu", st.st_mode, st.st_uid, st.st_gid,
             static_cast<unsigned long>(st.st_nlink));
  if (S_ISDIR(st.st_mode)) return text;
  return text + (" size " + std::to_string(st.st_size));
}

Variant opening(const char* name, int flags, mode_t mode = 0) {
  return {name, [=](const Cell& cell) {
            const int fd =
                ::open(cell.path.c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, mode);
            if (fd < 0) return told(-1);
            std::string seen = told_stat(fd);
            // What flows through a pipe or device is none of the filesystem's affair.
            struct stat st{};
            const bool is_regular = ::fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
            if ((flags & O_ACCMODE) != O_RDONLY && is_regular)
              seen += " write " + told(::write(fd, "+", 1));
            seen += " " + told_stat(fd);
            ::close(fd);
            return seen;
          }};
}

SystemCall open_call() {
  return {"open",
          {opening("RDONLY", O_RDONLY), opening("WRONLY", O_WRONLY), opening("RDWR", O_RDWR),
           opening("RDONLY TRUNC", O_RDONLY | O_TRUNC), opening("RDWR TRUNC", O_RDWR | O_TRUNC),
           opening("WRONLY APPEND", O_WRONLY | O_APPEND), opening("NOFOLLOW", O_NOFOLLOW),
           opening("DIRECTORY", O_DIRECTORY), opening("DIRECTORY RDWR", O_DIRECTORY | O_RDWR),
           opening("PATH", O_PATH), opening("PATH NOFOLLOW", O_PATH | O_NOFOLLOW),
           opening("NOATIME", O_NOATIME), opening("RDWR SYNC", O_RDWR | O_SYNC),
           opening("RDONLY DIRECT", O_RDONLY | O_DIRECT)}};
}

SystemCall creat_call() {
  return {"open with O_CREAT",
          {opening("CREAT", O_CREAT | O_RDWR, 0666), opening("CREAT mode 0", O_CREAT | O_RDWR, 0),
           opening("CREAT set-id", O_CREAT | O_RDWR, 06777),
           opening("CREAT EXCL", O_CREAT | O_EXCL | O_WRONLY, 0640),
           opening("CREAT EXCL NOFOLLOW", O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY, 0640),
           opening("CREAT TRUNC", O_CREAT | O_TRUNC | O_WRONLY, 0666),
           opening("CREAT NOFOLLOW", O_CREAT | O_NOFOLLOW | O_RDWR, 0666),
           opening("CREAT RDONLY", O_CREAT | O_RDONLY, 0444)}};
}

SystemCall tmpfile_call() {
  const auto nameless = [](int flags, mode_t mode) {
    return [=](const Cell& cell) {
      const int fd = ::open(cell.path.c_str(), O_TMPFILE | O_CLOEXEC | flags, mode);
      if (fd < 0) return told(-1);
      std::string seen = told_stat(fd) + " write " + told(::write(fd, "nameless", 8));
      const std::string self = "/proc/self/fd/" + std::to_string(fd);
      seen += " linkat " + told(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, cell.fresh().c_str(),
                                         AT_SYMLINK_FOLLOW));
      seen += " " + told_stat(fd);
      ::close(fd);
      return seen;
    };
  };
  return {"open with O_TMPFILE",
          {{"RDWR", nameless(O_RDWR, 0666)},
           {"WRONLY set-id", nameless(O_WRONLY, 06777)},
           {"RDWR EXCL", nameless(O_RDWR | O_EXCL, 0600)},
           {"RDONLY", nameless(O_RDONLY, 0600)}}};
}

SystemCall opendir_call() {
  return {"getdents", {{"all names", [](const Cell& cell) {
                          DIR* const directory = ::opendir(cell.path.c_str());
                          if (directory == nullptr) return told(-1);
                          std::vector<std::string> names;
                          while (const dirent* entry = ::readdir(directory)) {
                            names.push_back(std::to_string(entry->d_type) + entry->d_name);
                          }
                          ::closedir(directory);
                          std::ranges::sort(names);
                          std::string seen;
                          for (const std::string& name : names)
                            seen += name + " ";
                          return seen;
                        }}}};
}

SystemCall chdir_call() {
  return {"chdir",
          {{"chdir", [](const Cell& cell) { return told(::chdir(cell.path.c_str())); }},
           {"fchdir", [](const Cell& cell) {
              return with_fd(cell.path, O_PATH, [](int fd) { return told(::fchdir(fd)); });
            }}}};
}

SystemCall execve_call() {
  return {"execve", {{"what is no program", [](const Cell& cell) {
                        const char* const arguments[] = {"t", nullptr};
                        const char* const environment[] = {nullptr};
                        return told(::execve(cell.path.c_str(), const_cast<char**>(arguments),
                                             const_cast<char**>(environment)));
                      }}}};
}

}  // namespace

std::vector<SystemCall> open_calls() {
  return {open_call(), creat_call(), tmpfile_call(), opendir_call(), chdir_call(), execve_call()};
}

}  // namespace tally::test
