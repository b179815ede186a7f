#include "tests/mount/parity_suite.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <sstream>
#include <system_error>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/parity.hpp"

namespace tally::test {
namespace {

namespace stdfs = std::filesystem;

/// What the times of everything are set to before a call, so that it shows which ones moved.
constexpr struct timespec long_ago[2] = {{1'000'000'000, 123'456'789},
                                         {1'100'000'000, 987'654'321}};
/// A call that hangs is killed, with all cells after it.
constexpr unsigned batch_limit_s = 120;
/// Symbolic links that lead to one another, the first one to the batch's own directory.
constexpr int ladder_length = 41;

struct PlacedCell {
  Cell cell;
  const Variant* variant;
  const Target* target;
  std::map<std::string, struct timespec> ctimes;  // by path, before the call
};

std::string hexadecimal(std::string_view bytes) {
  std::ostringstream text;
  for (const char c : bytes)
    text << std::hex << (static_cast<unsigned>(c) & 0xff) << '.';
  return text.str();
}

std::string xattrs_of(const std::string& path) {
  char names[4096];
  const ssize_t length = ::llistxattr(path.c_str(), names, sizeof names);
  std::vector<std::string> found;
  for (ssize_t at = 0; at < length; at += static_cast<ssize_t>(found.back().size() + 1))
    found.emplace_back(names + at);
  std::ranges::sort(found);
  std::string text;
  for (const std::string& name : found) {
    std::string value(4096, '\0');
    const ssize_t size = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
    value.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    const bool is_long = value.size() > 100;
    text += " " + name + "=" + (is_long ? std::to_string(value.size()) : hexadecimal(value));
  }
  return text;
}

/// A time that was set to a certain value as it is, one that the clock gave as "now".
std::string told_time(const struct timespec& time) {
  if (time.tv_sec > 1'600'000'000 && time.tv_sec < 2'500'000'000) return "now";
  return std::to_string(time.tv_sec) + "." + std::to_string(time.tv_nsec);
}

std::string content_of(const std::string& path) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) return "";
  if (S_ISLNK(st.st_mode)) return " -> " + stdfs::read_symlink(path).string().substr(0, 100);
  if (!S_ISREG(st.st_mode) || st.st_size > (1 << 20)) return "";
  const std::string bytes = read_file(path);
  if (bytes.size() <= 40) return " '" + hexadecimal(bytes) + "'";
  return " #" + std::to_string(std::hash<std::string>{}(bytes));
}

/// One line about one path, as root sees it. The atime of a symbolic link is left out: following it
/// moves it, and when the kernel does that is its own affair.
std::string describe(const std::string& path,
                     const std::map<std::string, struct timespec>& ctimes) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) return path + ": " + told(-1);
  std::ostringstream line;
  line << path << ": " << std::oct << st.st_mode << std::dec << " " << st.st_uid << ":" << st.st_gid
       << " links " << st.st_nlink << " rdev " << st.st_rdev;
  if (!S_ISDIR(st.st_mode)) line << " size " << st.st_size;
  if (!S_ISLNK(st.st_mode)) line << " atime " << told_time(st.st_atim);
  line << " mtime " << told_time(st.st_mtim);
  const auto before = ctimes.find(path);
  if (before != ctimes.end()) {
    const bool moved =
        before->second.tv_sec != st.st_ctim.tv_sec || before->second.tv_nsec != st.st_ctim.tv_nsec;
    line << (moved ? " ctime moved" : " ctime kept");
  }
  return line.str();
}

/// Everything that belongs to a cell, what contains first.
std::vector<std::string> paths_of(const Cell& cell) {
  std::vector<std::string> paths;
  for (const std::string& top : {cell.parent, cell.second()}) {
    std::error_code missing;
    if (stdfs::symlink_status(top, missing).type() == stdfs::file_type::not_found) continue;
    paths.push_back(top);
    if (!stdfs::is_directory(top)) continue;
    for (const stdfs::directory_entry& entry : stdfs::recursive_directory_iterator(top))
      paths.push_back(entry.path());
  }
  std::ranges::sort(paths);
  return paths;
}

void make_other(const Cell& cell) {
  write_file(cell.other(), "other content");
  ::mkdir(cell.directory().c_str(), 0755);
  for (const std::string& path : {cell.other(), cell.directory()})
    static_cast<void>(::chown(path.c_str(), suite_owner, suite_group));
}

void place(PlacedCell& placed) {
  Cell& cell = placed.cell;
  ::mkdir(cell.parent.c_str(), 0755);
  static_cast<void>(::chown(cell.parent.c_str(), suite_owner, suite_group));
  ::chmod(cell.parent.c_str(), 0775);
  if (placed.variant->needs_other) make_other(cell);
  cell.path = cell.target();
  placed.target->make(cell);
  const std::vector<std::string> paths = paths_of(cell);
  for (const std::string& path : paths)
    ::utimensat(AT_FDCWD, path.c_str(), long_ago, AT_SYMLINK_NOFOLLOW);
  for (const std::string& path : paths) {
    struct stat st{};
    if (::lstat(path.c_str(), &st) == 0) placed.ctimes[path] = st.st_ctim;
  }
}

std::vector<PlacedCell> place_all(const SystemCall& call) {
  for (int step = 1; step <= ladder_length; ++step) {
    const std::string below = step == 1 ? "." : "s" + std::to_string(step - 1);
    static_cast<void>(::symlink(below.c_str(), ("s" + std::to_string(step)).c_str()));
  }
  std::vector<PlacedCell> cells;
  for (const Variant& variant : call.variants) {
    for (const Target& target : suite_targets()) {
      const std::string parent = "c" + std::to_string(cells.size());
      cells.push_back({.cell = {.parent = parent, .path = ""},
                       .variant = &variant,
                       .target = &target,
                       .ctimes = {}});
      place(cells.back());
    }
  }
  return cells;
}

std::string one_line(std::string text) {
  std::ranges::replace(text, '\n', '~');
  return text + "\n";
}

void write_out(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t written = ::write(fd, text.data() + done, text.size() - done);
    if (written <= 0) ::_exit(4);
    done += static_cast<size_t>(written);
  }
}

std::vector<std::string> lines_of(int fd) {
  std::istringstream text(read_file("/proc/self/fd/" + std::to_string(fd)));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);)
    lines.push_back(line);
  return lines;
}

/// Makes the calls in a process that has the credential: a line for each.
std::vector<std::string> act_all(const std::vector<PlacedCell>& cells,
                                 const Credential& credential) {
  const UniqueFd results(::memfd_create("results", MFD_CLOEXEC));
  const pid_t actor = ::fork();
  if (actor == 0) {
    ::alarm(batch_limit_s);
    const UniqueFd here(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    become(credential);
    for (const PlacedCell& placed : cells) {
      ::umask(027);
      write_out(results.get(), one_line(placed.variant->act(placed.cell)));
      if (::fchdir(here.get()) != 0) ::_exit(5);
    }
    ::_exit(0);
  }
  int status = 0;
  if (actor < 0 || ::waitpid(actor, &status, 0) != actor) ::_exit(6);
  std::vector<std::string> lines = lines_of(results.get());
  lines.resize(cells.size(), "nothing: the calls ended with status " + std::to_string(status));
  return lines;
}

/// All cells of a call with one credential, in a directory of their own: what there is to compare.
std::vector<std::string> transcript_of(const std::string& directory, const SystemCall& call,
                                       const Credential& credential) {
  stdfs::create_directory(directory);
  const UniqueFd transcript(::memfd_create("transcript", MFD_CLOEXEC));
  const pid_t child = ::fork();
  if (child == 0) {
    ::umask(0);
    if (::chdir(directory.c_str()) != 0) ::_exit(2);
    const std::vector<PlacedCell> cells = place_all(call);
    ::usleep(20'000);  // by which the clock of the filesystem has gone on
    const std::vector<std::string> results = act_all(cells, credential);
    for (size_t i = 0; i < cells.size(); ++i) {
      const PlacedCell& placed = cells[i];
      const std::string label =
          placed.variant->name + " | " + placed.target->name + " | " + credential.name + ": ";
      std::string text = one_line(label + results[i]);
      const std::vector<std::string> paths = paths_of(placed.cell);
      // All times before anything is read, which may move those of another name.
      for (const std::string& path : paths)
        text += one_line(label + describe(path, placed.ctimes));
      for (const std::string& path : paths)
        text += one_line(label + path + ":" + xattrs_of(path) + content_of(path));
      write_out(transcript.get(), text);
    }
    ::_exit(0);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) {
    throw std::system_error(errno, std::generic_category(), "fork");
  }
  CHECK(status == 0);
  return lines_of(transcript.get());
}

}  // namespace

std::vector<SystemCall> suite_calls() {
  std::vector<SystemCall> all;
  for (const auto& part : {attribute_calls(), name_calls(), rename_calls(), open_calls(),
                           data_calls(), query_calls(), xattr_calls()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

size_t cells_of(const SystemCall& call) {
  return call.variants.size() * suite_targets().size() * suite_credentials().size();
}

/// All of them; where memory or allocations are watched, which is slow, the owner and a member of
/// the group.
std::span<const Credential> credentials_of_this_build() {
#ifdef TALLYFS_SHORT_RUNS
  return suite_credentials().subspan(3, 2);
#else
  return suite_credentials();
#endif
}

void check_call(const MountFolders& folders, const Mount& mount, const SystemCall& call) {
  INFO(call.name);
  for (const Credential& credential : credentials_of_this_build()) {
    const std::string name = call.name + " by " + credential.name;
    const auto native = transcript_of(folders.native(name), call, credential);
    REQUIRE(native.size() > call.variants.size() * suite_targets().size());
    const auto different = differences(native, transcript_of(mount.at(name), call, credential));
    for (const std::string& line : different)
      std::cerr << line << "\n";  // as they are: Catch breaks long lines
    CHECK(different.empty());
    CHECK(wrong_counters(mount, Compare::exact_parts, name) == std::vector<std::string>{});
  }
}

std::string told(long returned) {
  if (returned != -1) return std::to_string(returned);
  return ::strerrorname_np(errno);
}

std::string told_fd(int returned) {
  if (returned == -1) return told(-1);
  ::close(returned);
  return "open";
}

std::string with_fd(const std::string& path, int flags,
                    const std::function<std::string(int)>& act) {
  const UniqueFd fd(::open(path.c_str(), flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666));
  if (!fd) return "open " + told(-1);
  return act(fd.get());
}

}  // namespace tally::test
