#include "tests/mount/parity.hpp"

#include <fcntl.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <sstream>
#include <system_error>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"

namespace tally::test {
namespace {

namespace stdfs = std::filesystem;

/// A scenario that hangs is killed after this.
constexpr unsigned scenario_limit_s = 60;

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

std::string describe(const struct stat& st) {
  std::ostringstream text;
  text << std::oct << st.st_mode << std::dec << " uid " << st.st_uid << " gid " << st.st_gid
       << " links " << st.st_nlink << " rdev " << st.st_rdev;
  if (!S_ISDIR(st.st_mode)) text << " size " << st.st_size;
  return text.str();
}

std::string printable(const std::string& bytes) {
  if (bytes.size() <= 80) return bytes;
  return bytes.substr(0, 40) + "…" + std::to_string(std::hash<std::string>{}(bytes));
}

std::string describe_xattrs(const std::string& path) {
  std::vector<char> names(64 << 10);
  const ssize_t length = ::llistxattr(path.c_str(), names.data(), names.size());
  if (length < 0) return errno == ENOTSUP ? "" : " listxattr failed";
  std::vector<std::string> found;
  for (const char* name = names.data(); name < names.data() + length;
       name += std::string_view(name).size() + 1) {
    found.push_back(std::string(name) + "=" + read_xattr(path, name).value_or("unreadable"));
  }
  std::ranges::sort(found);
  std::string text;
  for (const std::string& xattr : found)
    text += " " + xattr;
  return text;
}

void become(const Parity& parity) {
  if (parity.user == 0) return;
  if (::setgroups(parity.supplementary_groups.size(), parity.supplementary_groups.data()) != 0 ||
      ::setgid(parity.group) != 0 || ::setuid(parity.user) != 0) {
    ::_exit(3);
  }
}

/// Runs a scenario in a child; what it recorded, a line each.
std::vector<std::string> transcript_of(const std::string& directory, const Scenario& scenario,
                                       const Parity& credentials) {
  const UniqueFd transcript(::memfd_create("transcript", MFD_CLOEXEC));
  const pid_t child = ::fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    ::alarm(scenario_limit_s);
    ::umask(022);
    become(credentials);
    if (::chdir(directory.c_str()) != 0) ::_exit(2);
    Recorder recorder(transcript.get());
    scenario(recorder);
    ::_exit(0);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child) fail("waitpid");
  std::istringstream text(read_file("/proc/self/fd/" + std::to_string(transcript.get())));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);)
    lines.push_back(line);
  if (status != 0) lines.push_back("the scenario ended with status " + std::to_string(status));
  return lines;
}

}  // namespace

void Recorder::write_line(const std::string& line) {
  std::string one_line = line;
  std::ranges::replace(one_line, '\n', '~');
  one_line += '\n';
  if (::write(transcript_fd_, one_line.data(), one_line.size()) < 0) ::_exit(4);
}

long Recorder::call(const std::string& what, long returned) {
  const int error = errno;
  write_line(what + " = " + (returned == -1 ? ::strerrorname_np(error) : std::to_string(returned)));
  return returned;
}

UniqueFd Recorder::fd(const std::string& what, int returned) {
  const int error = errno;
  write_line(what + " = " + (returned == -1 ? ::strerrorname_np(error) : "a descriptor"));
  return UniqueFd(returned);
}

void Recorder::note(const std::string& what, const std::string& seen) {
  write_line(what + ": " + printable(seen));
}

void Recorder::stat(const std::string& path) {
  struct stat st{};
  if (call("lstat " + path, ::lstat(path.c_str(), &st)) == 0) note(path, describe(st));
}

void Recorder::stat(const std::string& what, int fd) {
  struct stat st{};
  if (call("fstat " + what, ::fstat(fd, &st)) == 0) note(what, describe(st));
}

void Recorder::content(const std::string& path) {
  try {
    const std::string bytes = read_file(path);
    note("content of " + path, std::to_string(bytes.size()) + " bytes " + bytes);
  } catch (const std::system_error& error) {
    note("content of " + path, error.code().message());
  }
}

void write_file(const std::string& path, const std::string& content, mode_t mode) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd) fail("create " + path);
  if (::write(fd.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size())) {
    fail("write " + path);
  }
}

std::string read_file(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) fail("open " + path);
  std::string content;
  char buffer[64 << 10];
  ssize_t length = 0;
  while ((length = ::pread(fd.get(), buffer, sizeof buffer, static_cast<off_t>(content.size()))) >
         0) {
    content.append(buffer, static_cast<size_t>(length));
  }
  if (length < 0) fail("read " + path);
  return content;
}

std::vector<std::string> describe_tree(const std::string& directory) {
  std::vector<std::string> lines;
  for (const stdfs::directory_entry& entry : stdfs::recursive_directory_iterator(directory)) {
    const std::string path = entry.path();
    struct stat st{};
    if (::lstat(path.c_str(), &st) != 0) fail("lstat " + path);
    std::string line = path.substr(directory.size()) + " " + describe(st);
    if (S_ISLNK(st.st_mode)) line += " -> " + stdfs::read_symlink(path).string();
    if (S_ISREG(st.st_mode)) line += " " + printable(read_file(path));
    lines.push_back(line + describe_xattrs(path));
  }
  std::ranges::sort(lines);
  return lines;
}

std::vector<std::string> differences(const std::vector<std::string>& native,
                                     const std::vector<std::string>& mount) {
  constexpr size_t shown_max = 12;
  std::vector<std::string> found;
  for (size_t i = 0; i < std::max(native.size(), mount.size()); ++i) {
    const std::string native_line = i < native.size() ? native[i] : "nothing";
    const std::string mount_line = i < mount.size() ? mount[i] : "nothing";
    if (native_line == mount_line) continue;
    found.push_back("line " + std::to_string(i) + ": natively " + native_line + ", on the mount " +
                    mount_line);
    if (found.size() == shown_max) break;
  }
  return found;
}

void check_parity(const MountFolders& folders, const Mount& mount, const Parity& parity) {
  static int case_number = 0;
  const std::string name = "case" + std::to_string(++case_number);
  const std::string native = folders.native(name);
  const std::string mounted = mount.at(name);
  std::vector<std::string> native_saw;
  std::vector<std::string> mount_saw;
  for (const auto& [directory, lines] :
       {std::pair(&native, &native_saw), std::pair(&mounted, &mount_saw)}) {
    stdfs::create_directory(*directory);
    if (parity.prepare) *lines = transcript_of(*directory, parity.prepare, Parity{});
    const auto more = transcript_of(*directory, parity.scenario, parity);
    lines->insert(lines->end(), more.begin(), more.end());
  }
  REQUIRE_FALSE(native_saw.empty());
  CHECK(differences(native_saw, mount_saw) == std::vector<std::string>{});
  const std::vector<std::string> native_tree = describe_tree(native);
  CHECK(differences(native_tree, describe_tree(mounted)) == std::vector<std::string>{});
  CHECK(differences(native_tree, describe_tree(mount.lower(name))) == std::vector<std::string>{});
  CHECK(wrong_counters(mount, Compare::exact_parts) == std::vector<std::string>{});
}

}  // namespace tally::test
