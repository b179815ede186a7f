#include "core/recount.hpp"

#include <algorithm>
#include <cassert>

namespace tally {

Recount::~Recount() {
  if (under_way_) finish(false);
}

Status Recount::begin() {
  const Status begun = accounts_.links().begin_recount(dir_);
  under_way_ = begun.has_value();
  return begun;
}

void Recount::meet(const FileStat& now) {
  others_.bytes += now.size;
  others_.blocks += now.blocks;
  ++others_.count;
  newest_ctime_ns_ = std::max(newest_ctime_ns_, now.ctime_ns);
}

void Recount::meet(FileRecord& file, const FileStat& now) {
  if (!accounts_.name_met(file, dir_, now)) differs_ = true;
  newest_ctime_ns_ = std::max(newest_ctime_ns_, now.ctime_ns);
}

bool Recount::meet_directory(const FileKey& key) {
  DirTree& tree = accounts_.tree();
  return tree.meet_child(dir_, tree.find(key));
}

bool Recount::finish(bool complete) {
  assert(under_way_);
  under_way_ = false;
  const auto [missed, lost_names] =
      accounts_.links().end_recount(dir_, others_, newest_ctime_ns_, complete);
  const bool agrees =
      missed.bytes.count == 0 && missed.blocks.count == 0 && missed.count == 0 && lost_names == 0;
  accounts_.tree().for_each_unseen_child(dir_, [this](DirIndex) { differs_ = true; });
  return complete && agrees && !differs_;
}

}  // namespace tally
