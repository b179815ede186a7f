#include "tests/temp_folder.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "core/unique_fd.hpp"

namespace tally::test {
namespace {

std::string usual_parent() {
  for (const char* variable : {"TALLYFS_TEST_DIR", "TMPDIR"}) {
    if (const char* parent = std::getenv(variable); parent != nullptr) return parent;
  }
  return "/tmp";
}

}  // namespace

TempFolder::TempFolder(const std::string& label, const std::string& parent)
    : path_(parent.empty() ? usual_parent() : parent) {
  path_ += "/tallyfs-" + label + "-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) {
    throw std::system_error(errno, std::generic_category(), "mkdtemp " + path_);
  }
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void sync_filesystem(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::syncfs(fd.get()) != 0) {
    throw std::system_error(errno, std::generic_category(), "syncfs " + path);
  }
}

}  // namespace tally::test
