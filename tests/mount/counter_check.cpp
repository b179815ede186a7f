#include "tests/mount/counter_check.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <limits>
#include <sstream>
#include <thread>

#include <catch2/catch.hpp>

using namespace std::chrono_literals;

namespace tally::test {
namespace {

constexpr auto settle_limit = 45s;
constexpr size_t lines_shown_max = 20;

std::string quoted(const std::string& path) {
  std::ostringstream text;
  for (const char c : path) {
    if (c >= ' ' && c <= '~') {
      text << c;
    } else {
      text << "\\x" << std::hex << (static_cast<unsigned>(c) & 0xff) << std::dec;
    }
  }
  return '"' + text.str().substr(0, 300) + '"';
}

/// Opens `path` below a directory in pieces, because it may be longer than PATH_MAX.
UniqueFd open_long_path(const std::string& root, std::string_view path) {
  constexpr int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  constexpr size_t piece_max = 3000;
  UniqueFd fd(::open(root.c_str(), flags));
  while (fd && !path.empty()) {
    size_t length = path.size();
    if (length > piece_max) length = path.rfind('/', piece_max);
    fd = UniqueFd(::openat(fd.get(), std::string(path.substr(0, length)).c_str(), flags));
    path.remove_prefix(std::min(path.size(), length + 1));
  }
  return fd;
}

std::string xattr_text(int fd, const std::string& name) {
  char value[64];
  const ssize_t length = ::fgetxattr(fd, name.c_str(), value, sizeof value);
  if (length < 0) return Errno{errno}.message();
  return {value, static_cast<size_t>(length)};
}

TimeNs parse_time(const std::string& text) {
  const size_t dot = text.find('.');
  if (dot == std::string::npos || text.size() != dot + 10) return -1;
  return std::stoll(text.substr(0, dot)) * 1'000'000'000 + std::stoll(text.substr(dot + 1));
}

class Comparison {
 public:
  Comparison(const Mount& mount, Compare what, std::string top)
      : mount_(mount), what_(what), top_(std::move(top)) {}

  std::vector<std::string> run() {
    for (const auto& [path, counters] : naive_count(mount_.lower(top_)))
      compare(path, counters);
    return std::move(wrong_);
  }

 private:
  void compare(const std::string& path, const Counters& want) {
    path_ = path;
    const UniqueFd fd = open_long_path(mount_.at(top_), path);
    if (!fd) return report("open", Errno{errno}.message(), "a directory");
    for (const auto& [name, value] :
         {std::pair("rbytes", want.rbytes), std::pair("rfiles", want.rfiles),
          std::pair("rsubdirs", want.rsubdirs), std::pair("rentries", want.rentries),
          std::pair("entries", want.entries), std::pair("files", want.files),
          std::pair("subdirs", want.subdirs)}) {
      expect(fd.get(), std::string("user.tally.") + name, value);
      expect(fd.get(), std::string("ceph.dir.") + name, value);
    }
    expect_text(fd.get(), "user.tally.state", "exact");
    for (const char* name : {"user.tally.rctime", "ceph.dir.rctime"}) {
      const std::string text = xattr_text(fd.get(), name);
      if (parse_time(text) < want.rctime_ns) {
        report(name, text, "at least " + std::to_string(want.rctime_ns) + " ns");
      }
    }
    compare_stat(fd.get(), want);
    if (what_ == Compare::everything) {
      expect(fd.get(), "user.tally.rdisk", want.rdisk);
      expect(fd.get(), "user.tally.runique", want.runique);
    }
  }

  void compare_stat(int fd, const Counters& want) {
    struct statx st{};
    if (::statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st) != 0) {
      return report("statx", Errno{errno}.message(), "success");
    }
    expect_number("st_size", static_cast<int64_t>(st.stx_size), want.rbytes);
    expect_number("st_blocks", static_cast<int64_t>(st.stx_blocks), want.st_blocks);
  }

  void expect(int fd, const std::string& name, int64_t want) {
    expect_text(fd, name, std::to_string(want));
  }
  void expect_text(int fd, const std::string& name, const std::string& want) {
    const std::string got = xattr_text(fd, name);
    if (got != want) report(name, got, want);
  }
  void expect_number(const char* name, int64_t got, int64_t want) {
    if (got != want) report(name, std::to_string(got), std::to_string(want));
  }
  void report(const std::string& name, const std::string& got, const std::string& want) {
    wrong_.push_back(quoted(path_) + ": " + name + " is " + got + ", should be " + want);
  }

  const Mount& mount_;
  Compare what_;
  std::string top_;
  std::string path_;
  std::vector<std::string> wrong_;
};

void check_nothing_wrong(std::vector<std::string> wrong) {
  if (wrong.size() > lines_shown_max) {
    const std::string rest = std::to_string(wrong.size() - lines_shown_max) + " more";
    wrong.resize(lines_shown_max);
    wrong.push_back(rest);
  }
  CHECK(wrong == std::vector<std::string>{});
}

}  // namespace

Result<std::string> read_xattr(const std::string& path, const std::string& name) {
  std::string value(64 << 10, '\0');
  const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
  if (length < 0) return last_error();
  value.resize(static_cast<size_t>(length));
  return value;
}

int64_t counter(const std::string& directory, const std::string& name) {
  const Result<std::string> text = read_xattr(directory, "user.tally." + name);
  INFO("counter " << name << " of " << directory);
  REQUIRE(text.has_value());
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  REQUIRE(error == std::errc());
  REQUIRE(end == text->data() + text->size());
  return value;
}

TimeNs rctime_ns(const std::string& directory) {
  const Result<std::string> text = read_xattr(directory, "user.tally.rctime");
  REQUIRE(text.has_value());
  return parse_time(*text);
}

std::vector<std::string> wrong_counters(const Mount& mount, Compare what) {
  return wrong_counters(mount, what, "");
}

std::vector<std::string> wrong_counters(const Mount& mount, Compare what,
                                        const std::string& below) {
  return Comparison(mount, what, below).run();
}

void check_counters(const Mount& mount, bool synced) {
  check_nothing_wrong(wrong_counters(mount, Compare::exact_parts));
  if (synced) sync_filesystem(mount.lower());
  const auto deadline = std::chrono::steady_clock::now() + settle_limit;
  std::vector<std::string> wrong = wrong_counters(mount, Compare::everything);
  while (!wrong.empty() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(500ms);
    wrong = wrong_counters(mount, Compare::everything);
  }
  check_nothing_wrong(std::move(wrong));
}

void check_healed(const Mount& mount, std::chrono::seconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (read_xattr(mount.at(), "user.tally.state").value() != "exact") {
    REQUIRE(std::chrono::steady_clock::now() < deadline);
    std::this_thread::sleep_for(20ms);
  }
  check_counters(mount);
}

}  // namespace tally::test
