#include "fs/counters_xattr.hpp"

#include <algorithm>
#include <charconv>

namespace tally::fs {

namespace {

constexpr std::string_view own_prefix = "user.tally.";
constexpr std::string_view ceph_prefix = "ceph.dir.";

struct NamedCounter {
  std::string_view name;
  Counter counter;
  bool in_cephfs;  // CephFS serves it too, as ceph.dir.<name> (ceph.io, "Extended attributes")
};

constexpr std::array named_counters = {
    NamedCounter{"rbytes", Counter::rbytes, true},
    NamedCounter{"rdisk", Counter::rdisk, false},
    NamedCounter{"rfiles", Counter::rfiles, true},
    NamedCounter{"rsubdirs", Counter::rsubdirs, true},
    NamedCounter{"rentries", Counter::rentries, true},
    NamedCounter{"entries", Counter::entries, true},
    NamedCounter{"files", Counter::files, true},
    NamedCounter{"subdirs", Counter::subdirs, true},
    NamedCounter{"rctime", Counter::rctime, true},
    NamedCounter{"rgen", Counter::rgen, false},
    NamedCounter{"runique", Counter::runique, false},
    NamedCounter{"state", Counter::state, false},
    NamedCounter{"orphan_bytes", Counter::orphan_bytes, false},
};

constexpr std::size_t name_list_size(std::size_t names) {
  std::size_t size = 0;
  for (std::size_t i = 0; i < names; ++i)
    size += own_prefix.size() + named_counters[i].name.size() + 1;
  return size;
}

constexpr auto name_list = [] {
  std::array<char, name_list_size(named_counters.size())> list = {};
  char* end = list.data();
  for (const NamedCounter& named : named_counters) {
    end = std::copy(own_prefix.begin(), own_prefix.end(), end);
    end = std::copy(named.name.begin(), named.name.end(), end);
    *end++ = '\0';
  }
  return list;
}();

static_assert(named_counters.back().counter == Counter::orphan_bytes,
              "the list of a directory that is not the root ends before it");

}  // namespace

std::optional<Counter> find_counter(std::string_view name) {
  const bool own = name.starts_with(own_prefix);
  if (!own && !name.starts_with(ceph_prefix)) return std::nullopt;
  name.remove_prefix(own ? own_prefix.size() : ceph_prefix.size());
  for (const NamedCounter& named : named_counters) {
    if (named.name == name && (own || named.in_cephfs)) return named.counter;
  }
  return std::nullopt;
}

bool is_counter_name(std::string_view name) {
  return name.starts_with(own_prefix) || find_counter(name).has_value();
}

CounterText::CounterText(Counter counter, const DirCounters& counters, const MountCounters& mount) {
  append_value(counter, counters, mount);
}

void CounterText::append_value(Counter counter, const DirCounters& counters,
                               const MountCounters& mount) {
  switch (counter) {
    case Counter::rbytes:
      return append_number(counters.rbytes.count);
    case Counter::rdisk:
      return append_number(counters.rdisk.count * block_size_bytes);
    case Counter::rfiles:
      return append_number(counters.rfiles);
    case Counter::rsubdirs:
      return append_number(counters.rsubdirs);
    case Counter::rentries:
      return append_number(counters.rentries());
    case Counter::entries:
      return append_number(counters.entries());
    case Counter::files:
      return append_number(counters.files);
    case Counter::subdirs:
      return append_number(counters.subdirs);
    case Counter::rctime:
      return append_time(counters.rctime_ns);
    case Counter::rgen:
      return append_number(counters.rgen);
    case Counter::runique:
      return append_number(counters.runique.count * block_size_bytes);
    case Counter::state:
      return append_state(counters, mount);
    case Counter::orphan_bytes:
      return append_number(mount.orphan_bytes.count);
  }
}

/// A directory is exact as soon as all below it is scanned.
void CounterText::append_state(const DirCounters& counters, const MountCounters& mount) {
  if (!counters.suspect && !mount.all_suspect) return append("exact");
  if (!mount.scanned_percent) return append("suspect");
  append("scanning ");
  append_number(*mount.scanned_percent);
  append("%");
}

void CounterText::append(std::string_view text) {
  std::copy(text.begin(), text.end(), text_.data() + size_);
  size_ += text.size();
}

template <class Integer>
void CounterText::append_number(Integer number) {
  const auto written = std::to_chars(text_.data() + size_, text_.data() + text_.size(), number);
  size_ = static_cast<std::size_t>(written.ptr - text_.data());
}

void CounterText::append_time(TimeNs time_ns) {
  constexpr TimeNs second_ns = 1'000'000'000;
  // The fraction counts forwards, also before 1970, as in struct timespec.
  const TimeNs fraction_ns = (time_ns % second_ns + second_ns) % second_ns;
  append_number((time_ns - fraction_ns) / second_ns);
  append(".");
  for (TimeNs digit_ns = second_ns / 10; digit_ns > 0; digit_ns /= 10)
    append_number(fraction_ns / digit_ns % 10);
}

std::string_view counter_name_list(bool is_root) {
  return {name_list.data(), name_list_size(named_counters.size() - (is_root ? 0 : 1))};
}

}  // namespace tally::fs
