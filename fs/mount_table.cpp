#include "fs/mount_table.hpp"

#include <cstdio>
#include <fstream>
#include <sstream>
#include <utility>

#include "core/file_stat.hpp"

namespace tally::fs {
namespace {

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                 (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

template <class Each>
void for_each_mount(Each each) {
  std::ifstream table("/proc/self/mountinfo");
  for (std::string line; std::getline(table, line);)
    if (auto entry = parse_mount_entry(line)) each(*entry);
}

}  // namespace

std::optional<MountEntry> parse_mount_entry(std::string_view line) {
  // id parent major:minor root mountpoint options [tags…] - type source super-options
  std::istringstream words{std::string(line)};
  std::string id, parent, device, root, mountpoint, options, word, type;
  words >> id >> parent >> device >> root >> mountpoint >> options;
  while (words >> word && word != "-") {
  }
  if (!(words >> type)) return std::nullopt;
  return MountEntry{
      .device = device, .mountpoint = unescape(mountpoint), .options = options, .type = type};
}

uint32_t MountEntry::device_number() const {
  unsigned major = 0;
  unsigned minor = 0;
  return std::sscanf(device.c_str(), "%u:%u", &major, &minor) == 2 ? pack_dev(major, minor) : 0;
}

std::optional<MountEntry> mount_at(const std::string& mountpoint) {
  std::optional<MountEntry> found;
  for_each_mount([&](MountEntry& entry) {
    if (entry.mountpoint == mountpoint) found = std::move(entry);
  });
  return found;
}

std::vector<MountEntry> mounts_below(const std::string& directory) {
  const std::string inside = directory == "/" ? directory : directory + "/";
  std::vector<MountEntry> found;
  for_each_mount([&](MountEntry& entry) {
    if (entry.mountpoint.starts_with(inside) && entry.mountpoint != directory)
      found.push_back(std::move(entry));
  });
  return found;
}

}  // namespace tally::fs
