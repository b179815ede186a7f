#include "tools/scan_report.hpp"

#include <algorithm>
#include <cstdio>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/human_text.hpp"

namespace tally::tools {

namespace {

using Json = nlohmann::ordered_json;

std::string count(int64_t value) { return count_text(static_cast<uint64_t>(value)); }

int64_t bytes_of(Blocks blocks) { return blocks.count * block_size_bytes; }

std::string size(int64_t bytes) {
  return bytes_text(static_cast<uint64_t>(bytes)) + "  (" + count(bytes) + " bytes)";
}

std::string time_text(TimeNs time_ns) {
  char text[64];
  std::snprintf(text, sizeof text, "%lld.%09lld", static_cast<long long>(time_ns / 1'000'000'000),
                static_cast<long long>(time_ns % 1'000'000'000));
  return text;
}

std::string date_text(TimeNs time_ns) {
  const time_t seconds = time_ns / 1'000'000'000;
  tm local;
  char text[64];
  std::strftime(text, sizeof text, "%F %T %z", ::localtime_r(&seconds, &local));
  return text;
}

void print_line(const char* label, const std::string& value) {
  std::printf("%-13s%s\n", label, value.c_str());
}

std::string dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

bool is_utf8(const std::string& text) {
  try {
    [[maybe_unused]] const std::string strict = Json(text).dump();
    return true;
  } catch (const Json::type_error&) {
    return false;
  }
}

void add_path(Json& json, const std::string& path) {
  json["path"] = path;
  if (is_utf8(path)) return;
  std::string hex;
  for (const char byte : path) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(byte));
    hex += digits;
  }
  json["path_hex"] = hex;
}

void add_counters(Json& json, const DirCounters& counters) {
  json["rbytes"] = counters.rbytes.count;
  json["rdisk"] = bytes_of(counters.rdisk);
  json["rfiles"] = counters.rfiles;
  json["rsubdirs"] = counters.rsubdirs;
  json["rentries"] = counters.rentries();
  json["runique"] = bytes_of(counters.runique);
  json["rctime"] = time_text(counters.rctime_ns);
}

const char* key_of(ScanErrorKind kind) {
  switch (kind) {
    case ScanErrorKind::unreadable:
      return "unreadable";
    case ScanErrorKind::vanished:
      return "vanished";
    case ScanErrorKind::changed:
      return "changed";
    case ScanErrorKind::duplicate:
      return "duplicate";
    case ScanErrorKind::no_room:
      return "no_room";
    case ScanErrorKind::other_filesystem:
      return "other_filesystem";
  }
  return "";
}

}  // namespace

std::vector<DirIndex> largest_directories(const DirTree& tree, uint32_t count) {
  std::vector<DirIndex> largest;
  const auto is_larger = [&](DirIndex a, DirIndex b) {
    return tree.node(a).disk_blocks > tree.node(b).disk_blocks;
  };
  // A heap with the smallest of the largest on top; children before their next siblings.
  DirIndex dir = tree.root();
  while (true) {
    if (const DirIndex child{tree.node(dir).first_child}) {
      dir = child;
    } else {
      while (dir != tree.root() && tree.node(dir).next_sibling == 0)
        dir = tree.parent(dir);
      if (dir == tree.root()) break;
      dir = {tree.node(dir).next_sibling};
    }
    if (largest.size() == count && (count == 0 || !is_larger(dir, largest.front()))) continue;
    if (largest.size() == count) {
      std::ranges::pop_heap(largest, is_larger);
      largest.pop_back();
    }
    largest.push_back(dir);
    std::ranges::push_heap(largest, is_larger);
  }
  std::ranges::sort_heap(largest, is_larger);
  return largest;
}

std::string ScanReport::full_path(std::string_view below) const {
  if (below.empty()) return directory;
  return directory + (directory.ends_with('/') ? "" : "/") + std::string(below);
}

void ScanReport::print() const {
  const DirCounters totals = tree.counters(tree.root());
  const double rate = static_cast<double>(summary.entries()) / std::max(summary.seconds, 1e-6);
  char duration[64];
  std::snprintf(duration, sizeof duration, "%.3f s  (", summary.seconds);

  std::printf("%s\n", directory.c_str());
  print_line("size", size(totals.rbytes.count));
  print_line("on disk", size(bytes_of(totals.rdisk)));
  print_line("unique", size(bytes_of(totals.runique)));
  print_line("entries", count(totals.rentries()));
  print_line("directories", count(totals.rsubdirs));
  print_line("files", count(totals.rfiles));
  print_line("hard links", count(summary.counts.linked_names));
  print_line("newest", date_text(totals.rctime_ns));
  print_line("scanned in", duration + count(static_cast<int64_t>(rate)) + " entries/s)");
  if (!largest || largest->empty()) return;
  std::printf("\nlargest directories on disk\n");
  for (const DirIndex dir : *largest)
    std::printf("%11s  %s\n",
                bytes_text(static_cast<uint64_t>(bytes_of(tree.counters(dir).rdisk))).c_str(),
                full_path(scanner.path_of(dir)).c_str());
}

void ScanReport::print_json() const {
  Json json;
  add_path(json, directory);
  add_counters(json, tree.counters(tree.root()));
  uint64_t errors = 0;
  Json kinds = Json::object();
  for (std::size_t i = 0; i < scan_error_kinds; ++i) {
    const auto kind = static_cast<ScanErrorKind>(i);
    kinds[key_of(kind)] = summary.errors_of(kind);
    errors += summary.errors_of(kind);
  }
  json["errors"] = errors;
  json["errors_by_kind"] = kinds;
  json["seconds"] = summary.seconds;
  if (largest) {
    Json top = Json::array();
    for (const DirIndex dir : *largest) {
      Json one;
      add_path(one, full_path(scanner.path_of(dir)));
      add_counters(one, tree.counters(dir));
      top.push_back(one);
    }
    json["top"] = top;
  }
  std::printf("%s\n", dump(json, 2).c_str());
}

void ScanReport::print_errors() const {
  for (std::size_t i = 0; i < scan_error_kinds; ++i) {
    const auto kind = static_cast<ScanErrorKind>(i);
    const uint64_t counted = summary.errors_of(kind);
    const std::size_t kept = scanner.errors().kept(kind);
    for (std::size_t k = 0; k < kept; ++k) {
      const ScanErrors::Report report = scanner.errors().report(kind, k);
      std::fprintf(stderr, "tally: %s %s: %s\n", full_path(report.path).c_str(),
                   description_of(kind), report.error.message().c_str());
    }
    if (counted > kept)
      std::fprintf(stderr, "tally: and %s more that %s\n", count_text(counted - kept).c_str(),
                   description_of(kind));
  }
}

bool ScanReport::is_complete() const {
  return summary.errors_of(ScanErrorKind::unreadable) == 0 &&
         summary.errors_of(ScanErrorKind::changed) == 0 &&
         summary.errors_of(ScanErrorKind::no_room) == 0;
}

}  // namespace tally::tools
