#include "tools/scan_progress.hpp"

#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <string>
#include <thread>

#include <catch2/catch.hpp>

#include "core/unique_fd.hpp"

using namespace tally;
using tally::tools::ScanProgress;

namespace {

/// What a process writes to standard error while it runs `body`: on a terminal of 40 columns, or
/// into a pipe.
std::string standard_error_of(const std::function<void()>& body, bool on_terminal) {
  int here = -1;
  int there = -1;
  const winsize size{.ws_row = 10, .ws_col = 40, .ws_xpixel = 0, .ws_ypixel = 0};
  int pipe_ends[2] = {-1, -1};
  if (on_terminal) {
    REQUIRE(::openpty(&here, &there, nullptr, nullptr, &size) == 0);
  } else {
    REQUIRE(::pipe(pipe_ends) == 0);
    here = pipe_ends[0];
    there = pipe_ends[1];
  }
  const UniqueFd reading(here);
  UniqueFd writing(there);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(writing.get(), STDERR_FILENO);
    body();
    ::_exit(0);
  }
  writing.reset();
  std::string text;
  char part[256];
  // A terminal whose other end is closed reads as EIO.
  for (ssize_t got; (got = ::read(reading.get(), part, sizeof part)) > 0;)
    text.append(part, static_cast<std::size_t>(got));
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  return text;
}

/// A scan that sees three entries and takes `duration`.
void slow_scan(const std::string& what, std::chrono::milliseconds duration) {
  ScanProgress progress(what);
  if (progress.events() != nullptr)
    for (int i = 0; i < 3; ++i)
      progress.events()->push({.kind = ScanEvent::Kind::file, .dir = {1}});
  std::this_thread::sleep_for(duration);
}

constexpr auto long_enough = std::chrono::milliseconds(500);

}  // namespace

TEST_CASE("a slow scan of few entries shows how far it is on a terminal, and takes the line away") {
  const std::string text = standard_error_of([] { slow_scan("/srv/data", long_enough); }, true);
  CHECK(text.find("3 entries") != std::string::npos);
  CHECK(text.find("scanning /srv/data") != std::string::npos);
  CHECK(text.ends_with("\r\033[K"));
}

TEST_CASE("where standard error is no terminal nothing is shown") {
  CHECK(standard_error_of([] { slow_scan("/srv/data", long_enough); }, false).empty());
}

TEST_CASE(
    "a line that is wider than the terminal, or has control characters in it, stays one line") {
  const std::string name = "/srv/" + std::string(100, 'x') + "\n\033[2J";
  const std::string text = standard_error_of([&] { slow_scan(name, long_enough); }, true);
  const std::size_t line = text.find("3 entries");
  REQUIRE(line != std::string::npos);
  // The terminal is told not to wrap, and to do so again after the line.
  CHECK(text.rfind("\033[?7l", line) != std::string::npos);
  CHECK(text.find("\033[?7h", line) != std::string::npos);
  CHECK(text.find('\n') == std::string::npos);
  CHECK(text.find("\033[2J") == std::string::npos);
}

TEST_CASE("a scan that is over at once shows nothing") {
  const std::string text =
      standard_error_of([] { slow_scan("/srv/data", std::chrono::milliseconds(0)); }, true);
  CHECK(text.empty());
}
