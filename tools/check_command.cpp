#include "tools/check_command.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <thread>

#include <nlohmann/json.hpp>

#include "core/human_text.hpp"
#include "core/result.hpp"
#include "fs/counters_xattr.hpp"
#include "tools/exit_status.hpp"

namespace tally::tools {

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

using fs::audit_name;
using fs::audit_now;

constexpr std::string_view state_name = "user.tally.state";
constexpr auto poll_pause = 20ms;
// What the audit has corrected may leave new directories to be recounted for a moment.
constexpr auto repair_limit = 5s;

/// The root of the mount that `path` is in, absolute.
std::string mount_root_of(const std::string& path) {
  std::error_code error;
  std::filesystem::path root = std::filesystem::canonical(path, error);
  if (error) throw std::runtime_error("cannot check " + path + ": " + error.message());
  while (true) {
    struct statx stx;
    if (::statx(AT_FDCWD, root.c_str(), AT_SYMLINK_NOFOLLOW, STATX_TYPE, &stx) != 0)
      throw std::runtime_error("cannot check " + root.string() + ": " + Errno{errno}.message());
    if ((stx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0 || !root.has_relative_path())
      return root.string();
    root = root.parent_path();
  }
}

Result<std::string> attribute(const std::string& path, std::string_view name) {
  std::array<char, 4096> value;
  const ssize_t size =
      ::getxattr(path.c_str(), std::string(name).c_str(), value.data(), value.size());
  if (size < 0) return last_error();
  return std::string(value.data(), static_cast<std::size_t>(size));
}

/// An attribute of a mount that is live.
std::string required(const std::string& root, std::string_view name) {
  auto value = attribute(root, name);
  if (!value)
    throw std::runtime_error("the mount at " + root + " is gone: " + value.error().message());
  return *std::move(value);
}

void check_is_mount(const std::string& path, const std::string& root) {
  const auto known = attribute(root, audit_name);
  if (known) return;
  const int error = known.error().value;
  const bool is_other = error == ENODATA || error == EOPNOTSUPP || error == EPERM;
  throw std::runtime_error(is_other ? path + " is not in a TallyFS mount"
                                    : "cannot check " + path + ": " + known.error().message());
}

void ask_for_audit(const std::string& root) {
  if (::setxattr(root.c_str(), std::string(audit_name).c_str(), audit_now.data(), audit_now.size(),
                 0) != 0)
    throw std::runtime_error("cannot have " + root + " recounted: " + Errno{errno}.message());
}

/// Returns what the mount reports when its audit has ended.
std::string wait_for_report(const std::string& root) {
  constexpr const char* erase_line = "\r\033[K";
  const bool shows = ::isatty(STDERR_FILENO) != 0;
  const auto start = Clock::now();
  int64_t shown_s = 0;
  while (true) {
    std::string report = required(root, audit_name);
    if (report != "running") {
      if (shown_s != 0) std::fputs(erase_line, stderr);
      return report;
    }
    const int64_t passed_s = (Clock::now() - start) / 1s;
    if (shows && passed_s != shown_s) {
      std::fprintf(stderr, "%srecounting, %lld s, %s", erase_line, static_cast<long long>(passed_s),
                   required(root, state_name).c_str());
      shown_s = passed_s;
    }
    std::this_thread::sleep_for(poll_pause);
  }
}

std::string wait_for_state(const std::string& root) {
  const auto end = Clock::now() + repair_limit;
  std::string state = required(root, state_name);
  while (state != "exact" && Clock::now() < end) {
    std::this_thread::sleep_for(poll_pause);
    state = required(root, state_name);
  }
  return state;
}

/// What "name=number name=number" says; "none" says nothing.
class Report {
 public:
  explicit Report(const std::string& text) {
    std::istringstream words(text);
    for (std::string word; words >> word;) {
      const std::size_t equals = word.find('=');
      if (equals == std::string::npos) continue;
      numbers_[word.substr(0, equals)] = std::strtoull(word.c_str() + equals + 1, nullptr, 10);
    }
  }
  [[nodiscard]] uint64_t operator[](const char* name) const {
    const auto found = numbers_.find(name);
    if (found == numbers_.end())
      throw std::runtime_error("the mount's report has no number of " + std::string(name));
    return found->second;
  }
  [[nodiscard]] uint64_t number_or_0(const char* name) const {
    const auto found = numbers_.find(name);
    return found == numbers_.end() ? 0 : found->second;
  }

 private:
  std::map<std::string, uint64_t> numbers_;
};

/// What was found while somebody waited for his audit, by it and by others that have come between.
struct Found {
  uint64_t differences;
  uint64_t failed;
};

Found found_between(const Report& before, const Report& after) {
  return {.differences = after["all_differences"] - before.number_or_0("all_differences"),
          .failed = after["all_failed"] - before.number_or_0("all_failed")};
}

void print(const std::string& root, const Report& report, const Found& found,
           const std::string& state) {
  std::printf("%s\n", root.c_str());
  std::printf("directories  %s\n", count_text(report["directories"]).c_str());
  std::printf("differences  %s%s\n", count_text(found.differences).c_str(),
              found.differences != 0 ? "  (corrected)" : "");
  std::printf("unreadable   %s\n", count_text(found.failed).c_str());
  std::printf("state        %s\n", state.c_str());
  std::printf("checked in   %.3f s\n", static_cast<double>(report["milliseconds"]) / 1000);
}

void print_json(const std::string& root, const Report& report, const Found& found,
                const std::string& state) {
  Json json;
  json["path"] = root;
  json["directories"] = report["directories"];
  json["differences"] = found.differences;
  json["failed"] = found.failed;
  json["state"] = state;
  json["seconds"] = static_cast<double>(report["milliseconds"]) / 1000;
  json["finished"] = report["finished"];
  std::printf("%s\n", json.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

}  // namespace

CLI::App* CheckCommand::add_to(CLI::App& app) {
  CLI::App* line = app.add_subcommand(
      "check", "Have a mount recount everything and print what it found (0: all was right)");
  line->add_option("DIR", directory_, "the mount, or anything in it")->capture_default_str();
  line->add_flag("--json", json_, "print JSON");
  return line;
}

int CheckCommand::run() {
  const std::string root = mount_root_of(directory_);
  check_is_mount(directory_, root);
  // Another one that is under way may have begun before what is to be found.
  const Report before(wait_for_report(root));
  ask_for_audit(root);
  const Report report(wait_for_report(root));
  const Found found = found_between(before, report);
  const std::string state = wait_for_state(root);
  if (json_) {
    print_json(root, report, found, state);
  } else {
    print(root, report, found, state);
  }
  return found.differences == 0 && found.failed == 0 ? exit_ok : exit_incomplete;
}

}  // namespace tally::tools
