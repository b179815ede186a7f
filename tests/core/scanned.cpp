#include "tests/core/scanned.hpp"

#include <fcntl.h>

#include <filesystem>
#include <functional>
#include <stdexcept>
#include <system_error>

#include "core/unique_fd.hpp"

namespace tally::test {

namespace {

ScannerOptions with_names(ScannerOptions options) {
  options.keep_names = true;
  return options;
}

Counters in_oracles_form(const DirCounters& c, int64_t own_blocks) {
  return {.rbytes = c.rbytes.count,
          .rdisk = c.rdisk.count * block_size_bytes,
          .rfiles = c.rfiles,
          .rsubdirs = c.rsubdirs,
          .rentries = c.rentries(),
          .entries = c.entries(),
          .files = c.files,
          .subdirs = c.subdirs,
          .runique = c.runique.count * block_size_bytes,
          .rctime_ns = c.rctime_ns,
          .st_blocks = own_blocks};
}

/// Calls `visit` for every directory, without recursion: chains may be deep.
void for_each_directory(const DirTree& tree, const std::function<void(DirIndex)>& visit) {
  DirIndex dir = tree.root();
  while (true) {
    visit(dir);
    if (const DirIndex child{tree.node(dir).first_child}) {
      dir = child;
      continue;
    }
    while (dir != tree.root() && tree.node(dir).next_sibling == 0)
      dir = tree.parent(dir);
    if (dir == tree.root()) return;
    dir = {tree.node(dir).next_sibling};
  }
}

}  // namespace

Scanned::Scanned(ScannerOptions options, uint32_t dirs_max, uint32_t links_max)
    : tree(dirs_max), links(tree, links_max), scanner(tree, links, with_names(options)) {}

void Scanned::scan(const std::string& directory) {
  const UniqueFd fd(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  const auto result = scanner.run(fd.get());
  if (!result) throw std::runtime_error("scan of " + directory + ": " + result.error().message());
  summary = *result;
}

CountMap Scanned::counts() const {
  CountMap counts;
  for_each_directory(tree, [&](DirIndex dir) {
    counts[scanner.path_of(dir)] =
        in_oracles_form(tree.counters(dir), tree.node(dir).own_blocks.load());
  });
  return counts;
}

DirCounters Scanned::at(const std::string& path) const {
  DirIndex found;
  for_each_directory(tree, [&](DirIndex dir) {
    if (scanner.path_of(dir) == path) found = dir;
  });
  if (!found) throw std::runtime_error("no directory " + path + " in the tree");
  return tree.counters(found);
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

DescriptorLimit::DescriptorLimit(rlim_t descriptors_max) {
  const bool known = ::getrlimit(RLIMIT_NOFILE, &was_) == 0;
  const rlimit lowered{.rlim_cur = descriptors_max, .rlim_max = was_.rlim_max};
  if (!known || ::setrlimit(RLIMIT_NOFILE, &lowered) != 0)
    throw std::system_error(errno, std::generic_category(), "limit of descriptors");
}

}  // namespace tally::test
