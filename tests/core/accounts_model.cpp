#include "tests/core/accounts_model.hpp"

#include <algorithm>
#include <sstream>
#include <utility>

namespace tally::test {

struct AccountsModel::File {
  uint64_t ino;
  Bytes size;
  Blocks blocks;
  TimeNs ctime_ns;
  uint32_t names = 0;     // in the tree
  uint32_t external = 0;  // outside the source
  uint32_t handles = 0;
  FileRecord record;
  bool recorded = false;  // whether `record` is in use, as the slot of a cached inode would be
};

struct AccountsModel::Dir {
  uint64_t ino;
  Blocks blocks;
  TimeNs ctime_ns;
  Dir* parent = nullptr;
  std::string name = {};
  DirIndex index = {};
  std::map<std::string, FilePtr> files = {};
  std::map<std::string, Dir*> dirs = {};

  [[nodiscard]] bool has(const std::string& entry) const {
    return files.contains(entry) || dirs.contains(entry);
  }
};

struct AccountsModel::Place {
  Dir* dir = nullptr;
  std::string name;

  [[nodiscard]] bool is_dir() const { return dir->dirs.contains(name); }
  [[nodiscard]] bool is_file() const { return dir->files.contains(name); }
  [[nodiscard]] const FilePtr& file() const { return dir->files.at(name); }
};

AccountsModel::AccountsModel(uint64_t seed, uint32_t links_max)
    : random_(seed), accounts_(std::make_unique<Accounts>(4096, links_max)) {
  auto root = std::make_unique<Dir>(Dir{.ino = next_ino_++, .blocks = {8}, .ctime_ns = tick()});
  root->index = accounts_->tree().insert({}, stat_of(*root)).value();
  dirs_.push_back(root.get());
  all_dirs_.push_back(std::move(root));
}

AccountsModel::~AccountsModel() = default;

// --- Random choices --------------------------------------------------------------------------

TimeNs AccountsModel::tick() { return clock_ns_ += 1'000 + static_cast<TimeNs>(pick(1'000'000)); }

AccountsModel::Dir& AccountsModel::any_dir() { return *dirs_[pick(dirs_.size())]; }

AccountsModel::Place AccountsModel::any_place() {
  Dir& dir = any_dir();
  const std::size_t there = dir.files.size() + dir.dirs.size();
  // Mostly an entry that exists, if there is one.
  if (there == 0 || pick(4) == 0) return {.dir = &dir, .name = "n" + std::to_string(next_name_++)};
  const std::size_t chosen = pick(there);
  if (chosen < dir.files.size())
    return {.dir = &dir, .name = std::next(dir.files.begin(), static_cast<long>(chosen))->first};
  const auto among_dirs = static_cast<long>(chosen - dir.files.size());
  return {.dir = &dir, .name = std::next(dir.dirs.begin(), among_dirs)->first};
}

AccountsModel::Place AccountsModel::any_file() {
  for (int attempt = 0; attempt < 20; ++attempt) {
    Place place = any_place();
    if (place.is_file()) return place;
  }
  return {};
}

// --- What the front end knows ----------------------------------------------------------------

FileStat AccountsModel::stat_of(const File& file) const {
  return {.key = {.ino = file.ino, .dev = 1},
          .mode = S_IFREG | 0644,
          .nlink = file.names + file.external,
          .size = file.size,
          .blocks = file.blocks,
          .ctime_ns = file.ctime_ns};
}

FileStat AccountsModel::stat_of(const Dir& dir) const {
  return {.key = {.ino = dir.ino, .dev = 1},
          .mode = S_IFDIR | 0755,
          .nlink = 2,
          .size = {4096},
          .blocks = dir.blocks,
          .ctime_ns = dir.ctime_ns};
}

FileRecord& AccountsModel::record_of(const Place& place) {
  File& file = *place.file();
  if (!std::exchange(file.recorded, true))
    accounts_->file_found(file.record, place.dir->index, stat_of(file));
  return file.record;
}

void AccountsModel::parent_changed(Dir& dir) {
  dir.ctime_ns = tick();
  if (pick(8) == 0) dir.blocks = {static_cast<int64_t>(8 * (1 + pick(4)))};
  accounts_->dir_observed(dir.index, stat_of(dir), true);
}

void AccountsModel::grow(File& file) {
  file.size = {static_cast<int64_t>(pick(3) == 0 ? 0 : pick(1 << 20))};
  // Sparse, preallocated, compressed: blocks need not follow the size.
  file.blocks = {static_cast<int64_t>(8 * pick(300))};
}

// --- Operations ------------------------------------------------------------------------------

void AccountsModel::step() {
  using Operation = void (AccountsModel::*)();
  struct Weighted {
    int weight;
    Operation operation;
  };
  static constexpr Weighted table[] = {
      {14, &AccountsModel::create},       {14, &AccountsModel::write},
      {4, &AccountsModel::chmod},         {12, &AccountsModel::link},
      {16, &AccountsModel::unlink},       {8, &AccountsModel::open_close},
      {2, &AccountsModel::tmpfile},       {14, &AccountsModel::rename},
      {4, &AccountsModel::exchange},      {7, &AccountsModel::make_dir},
      {6, &AccountsModel::remove_dir},    {2, &AccountsModel::external_link},
      {6, &AccountsModel::forget_record}, {1, &AccountsModel::scan_again}};
  int total = 0;
  for (const Weighted& entry : table)
    total += entry.weight;
  auto drawn = static_cast<int>(pick(static_cast<uint64_t>(total)));
  const Weighted* chosen = table;
  while (drawn >= chosen->weight)
    drawn -= (chosen++)->weight;
  note("nothing");
  (this->*chosen->operation)();
  ++steps_done_;
}

void AccountsModel::create() {
  Dir& dir = any_dir();
  if (dir.files.size() > 30) return;
  const std::string name = "f" + std::to_string(next_name_++);
  note("create " + name);
  auto file = std::make_shared<File>();
  file->ino = next_ino_++;
  file->ctime_ns = tick();
  file->names = 1;
  file->recorded = true;
  if (pick(2) == 0) grow(*file);
  dir.files[name] = file;
  accounts_->name_added(file->record, dir.index, stat_of(*file));
  parent_changed(dir);
}

void AccountsModel::write() {
  FilePtr file;
  if (!open_files_.empty() && pick(3) == 0) {
    file = open_files_[pick(open_files_.size())];
  } else {
    const Place place = any_file();
    if (place.dir == nullptr) return;
    record_of(place);
    file = place.file();
  }
  note("write to inode " + std::to_string(file->ino));
  grow(*file);
  file->ctime_ns = tick();
  accounts_->file_observed(file->record, stat_of(*file), pick(2) == 0);
}

void AccountsModel::chmod() {
  const Place place = any_place();
  if (place.is_file()) {
    note("chmod " + place.name);
    FileRecord& record = record_of(place);
    place.file()->ctime_ns = tick();
    accounts_->file_observed(record, stat_of(*place.file()), true);
  } else {
    note("chmod of a directory");
    place.dir->ctime_ns = tick();
    accounts_->dir_observed(place.dir->index, stat_of(*place.dir), true);
  }
}

void AccountsModel::link() {
  const Place from = any_file();
  if (from.dir == nullptr) return;
  Dir& to = any_dir();
  const std::string name = "l" + std::to_string(next_name_++);
  note("link " + from.name + " to " + name);
  FileRecord& record = record_of(from);
  const FilePtr file = from.file();
  to.files[name] = file;
  ++file->names;
  file->ctime_ns = tick();
  accounts_->name_added(record, to.index, stat_of(*file));
  parent_changed(to);
}

void AccountsModel::drop_name(Dir& dir, const std::string& name) {
  const Place place{.dir = &dir, .name = name};
  FileRecord& record = record_of(place);
  const FilePtr file = place.file();
  dir.files.erase(name);
  --file->names;
  file->ctime_ns = tick();
  accounts_->name_removed(record, dir.index, stat_of(*file), file->handles > 0);
}

void AccountsModel::unlink() {
  const Place place = any_file();
  if (place.dir == nullptr) return;
  note("unlink " + place.name);
  drop_name(*place.dir, place.name);
  parent_changed(*place.dir);
}

void AccountsModel::open_close() {
  if (!open_files_.empty() && pick(2) == 0) {
    const std::size_t chosen = pick(open_files_.size());
    const FilePtr file = open_files_[chosen];
    note("close inode " + std::to_string(file->ino));
    open_files_.erase(open_files_.begin() + static_cast<long>(chosen));
    if (--file->handles == 0) accounts_->last_handle_closed(file->record);
    return;
  }
  const Place place = any_file();
  if (place.dir == nullptr) return;
  note("open " + place.name);
  record_of(place);
  ++place.file()->handles;
  open_files_.push_back(place.file());
}

void AccountsModel::tmpfile() {
  auto file = std::make_shared<File>();
  file->ino = next_ino_++;
  file->ctime_ns = tick();
  file->handles = 1;
  file->recorded = true;
  open_files_.push_back(file);
  accounts_->orphan_opened(file->record, stat_of(*file));
  note("tmpfile " + std::to_string(file->ino));
  if (pick(2) == 0) return;
  Dir& to = any_dir();
  const std::string name = "t" + std::to_string(next_name_++);
  note("tmpfile linked to " + name);
  to.files[name] = file;
  file->names = 1;
  file->ctime_ns = tick();
  accounts_->name_added(file->record, to.index, stat_of(*file));
  parent_changed(to);
}

bool AccountsModel::is_below(const Dir* dir, const Dir* ancestor) {
  while (dir != nullptr && dir != ancestor)
    dir = dir->parent;
  return dir != nullptr;
}

void AccountsModel::rename() {
  const Place from = any_place();
  const Place to = any_place();
  if (from.is_file()) rename_file(from, to);
  if (from.is_dir()) rename_dir(from, to);
}

void AccountsModel::rename_file(const Place& from, const Place& to) {
  if (to.is_dir()) return;
  note("rename file " + from.name + " to " + to.name);
  if (to.is_file() && to.file() == from.file()) return;  // same inode: nothing happens
  FileRecord& record = record_of(from);
  const FilePtr file = from.file();
  if (to.is_file()) drop_name(*to.dir, to.name);
  from.dir->files.erase(from.name);
  to.dir->files[to.name] = file;
  file->ctime_ns = tick();
  accounts_->name_moved(record, from.dir->index, to.dir->index, stat_of(*file));
  parent_changed(*from.dir);
  parent_changed(*to.dir);
}

void AccountsModel::move_child_dir(Dir& child, Dir& to, const std::string& name) {
  child.parent->dirs.erase(child.name);
  to.dirs[name] = &child;
  child.parent = &to;
  child.name = name;
  child.ctime_ns = tick();
  accounts_->dir_moved(child.index, to.index, stat_of(child));
}

void AccountsModel::rename_dir(const Place& from, const Place& to) {
  Dir* moving = from.dir->dirs.at(from.name);
  if (to.is_file() || is_below(to.dir, moving)) return;
  note("rename directory " + from.name + " to " + to.name);
  if (to.is_dir()) {
    Dir* victim = to.dir->dirs.at(to.name);
    if (victim == moving || !victim->files.empty() || !victim->dirs.empty()) return;
    to.dir->dirs.erase(to.name);
    std::erase(dirs_, victim);
    accounts_->dir_removed(victim->index);
    accounts_->tree().release(victim->index);
  }
  move_child_dir(*moving, *to.dir, to.name);
  parent_changed(*from.dir);
  parent_changed(*to.dir);
}

void AccountsModel::exchange() {
  const Place a = any_place();
  const Place b = any_place();
  if (!a.dir->has(a.name) || !b.dir->has(b.name)) return;
  if (a.dir == b.dir && a.name == b.name) return;
  note("exchange " + a.name + " and " + b.name);
  Dir* dir_a = a.is_dir() ? a.dir->dirs.at(a.name) : nullptr;
  Dir* dir_b = b.is_dir() ? b.dir->dirs.at(b.name) : nullptr;
  if (dir_a != nullptr && is_below(b.dir, dir_a)) return;
  if (dir_b != nullptr && is_below(a.dir, dir_b)) return;
  FilePtr file_a = dir_a != nullptr ? nullptr : a.file();
  FilePtr file_b = dir_b != nullptr ? nullptr : b.file();
  if (file_a != nullptr && file_a == file_b) return;
  FileRecord* record_a = file_a ? &record_of(a) : nullptr;
  FileRecord* record_b = file_b ? &record_of(b) : nullptr;

  a.dir->files.erase(a.name);
  b.dir->files.erase(b.name);
  if (file_a) b.dir->files[b.name] = file_a;
  if (file_b) a.dir->files[a.name] = file_b;
  if (dir_a != nullptr) move_child_dir(*dir_a, *b.dir, b.name + "'");
  if (dir_b != nullptr) move_child_dir(*dir_b, *a.dir, a.name);
  if (dir_a != nullptr) {
    b.dir->dirs.erase(b.name + "'");
    b.dir->dirs[b.name] = dir_a;
    dir_a->name = b.name;
  }
  if (file_a) file_a->ctime_ns = tick();
  if (file_b) file_b->ctime_ns = tick();
  if (file_a) accounts_->name_moved(*record_a, a.dir->index, b.dir->index, stat_of(*file_a));
  if (file_b) accounts_->name_moved(*record_b, b.dir->index, a.dir->index, stat_of(*file_b));
  parent_changed(*a.dir);
  parent_changed(*b.dir);
}

void AccountsModel::make_dir() {
  Dir& parent = any_dir();
  if (dirs_.size() > 60) return;
  const std::string name = "d" + std::to_string(next_name_++);
  note("mkdir " + name);
  auto dir = std::make_unique<Dir>(Dir{.ino = next_ino_++,
                                       .blocks = {static_cast<int64_t>(8 * pick(3))},
                                       .ctime_ns = tick(),
                                       .parent = &parent,
                                       .name = name});
  dir->index = accounts_->dir_created(parent.index, stat_of(*dir)).value();
  rctime_seen_.erase(dir->index);
  parent.dirs[name] = dir.get();
  dirs_.push_back(dir.get());
  all_dirs_.push_back(std::move(dir));
  parent_changed(parent);
}

void AccountsModel::remove_dir() {
  Dir& dir = any_dir();
  if (dir.parent == nullptr) return;
  if (!dir.dirs.empty()) return;
  note("rm -r " + dir.name);
  while (!dir.files.empty())
    drop_name(dir, dir.files.begin()->first);
  dir.parent->dirs.erase(dir.name);
  std::erase(dirs_, &dir);
  accounts_->dir_removed(dir.index);
  accounts_->tree().release(dir.index);
  parent_changed(*dir.parent);
}

void AccountsModel::external_link() {
  // A name outside of the source comes or goes; it is noticed at the next observation.
  const Place place = any_file();
  if (place.dir == nullptr) return;
  FileRecord& record = record_of(place);
  File& file = *place.file();
  if (!record.link) return;  // an inode that is not followed yet is found out by the audit
  note("external link of " + place.name);
  file.external = file.external > 0 && pick(2) == 0 ? file.external - 1 : file.external + 1;
  file.ctime_ns = tick();
  accounts_->file_observed(record, stat_of(file), false);
}

void AccountsModel::forget_record() {
  const Place place = any_file();
  if (place.dir == nullptr || place.file()->handles > 0) return;
  if (place.file()->record.link && place.file()->external > 0 && place.file()->names == 1) return;
  note("forget inode " + std::to_string(place.file()->ino));
  place.file()->recorded = false;
}

void AccountsModel::scan_again() {
  note("scan again");
  for (const FilePtr& file : open_files_)
    file->handles = 0;
  open_files_.clear();
  rctime_seen_.clear();
  accounts_ = std::make_unique<Accounts>(4096, 4096);
  Dir& root = *dirs_.front();
  root.index = accounts_->tree().insert({}, stat_of(root)).value();
  insert_below(root);

  std::vector<Place> places;
  for (Dir* dir : dirs_)
    for (const auto& [name, file] : dir->files)
      places.push_back({.dir = dir, .name = name});
  // Workers read different directories at the same time: names come in any order.
  std::ranges::shuffle(places, random_);
  for (const Place& place : places) {
    File& file = *place.file();
    file.recorded = false;
    file.record = {};
    const FileStat stat = stat_of(file);
    if (stat.nlink > 1) {
      accounts_->tree().add_entries(place.dir->index, +1);
      (void)accounts_->links().add_scanned_name(place.dir->index, stat);
    } else {
      (void)accounts_->tree().apply_file(
          {.dir = place.dir->index},
          {.bytes = stat.size, .disk = stat.blocks, .unique = stat.blocks, .files = 1},
          stat.ctime_ns, +1);
    }
  }
  accounts_->links().fold();
}

void AccountsModel::insert_below(Dir& dir) {
  for (const auto& [name, child] : dir.dirs) {
    child->index = accounts_->dir_created(dir.index, stat_of(*child)).value();
    insert_below(*child);
  }
}

// --- The oracle ------------------------------------------------------------------------------

struct AccountsModel::Recount {
  std::map<const File*, uint32_t> names_below;
  int64_t subdirs = 0;
  int64_t dir_blocks = 0;
  TimeNs ctime_ns = 0;
};

AccountsModel::Recount AccountsModel::recount(Dir& dir, Suspects suspects, std::string& found) {
  Recount sum{
      .names_below = {}, .subdirs = 0, .dir_blocks = dir.blocks.count, .ctime_ns = dir.ctime_ns};
  for (const auto& [name, file] : dir.files) {
    ++sum.names_below[file.get()];
    sum.ctime_ns = std::max(sum.ctime_ns, file->ctime_ns);
  }
  for (const auto& [name, child] : dir.dirs) {
    const Recount below = recount(*child, suspects, found);
    for (const auto& [file, count] : below.names_below)
      sum.names_below[file] += count;
    sum.subdirs += 1 + below.subdirs;
    sum.dir_blocks += below.dir_blocks;
    sum.ctime_ns = std::max(sum.ctime_ns, below.ctime_ns);
  }

  int64_t bytes = 0;
  int64_t disk = sum.dir_blocks;
  int64_t unique = sum.dir_blocks;
  for (const auto& [file, count] : sum.names_below) {
    bytes += file->size.count;
    disk += file->blocks.count;
    if (count == file->names + file->external) unique += file->blocks.count;
  }
  const DirCounters counted = accounts_->tree().counters(dir.index);
  const bool above_is_suspect =
      dir.parent == nullptr || accounts_->tree().counters(dir.parent->index).suspect;
  if (counted.suspect && above_is_suspect && suspects == Suspects::may_be_wrong) return sum;
  const auto expect = [&](const char* what, int64_t expected, int64_t actual) {
    if (expected == actual || !found.empty()) return;
    std::ostringstream text;
    text << "directory " << dir.index.value << " (" << dir.name << "): " << what << " is " << actual
         << ", recounted " << expected << ", after step " << steps_done_ << ": " << last_operation_;
    found = text.str();
  };
  expect("rbytes", bytes, counted.rbytes.count);
  expect("rdisk", disk, counted.rdisk.count);
  expect("runique", unique, counted.runique.count);
  expect("rfiles", static_cast<int64_t>(sum.names_below.size()), counted.rfiles);
  expect("rsubdirs", sum.subdirs, counted.rsubdirs);
  expect("files", static_cast<int64_t>(dir.files.size()), counted.files);
  expect("subdirs", static_cast<int64_t>(dir.dirs.size()), counted.subdirs);
  expect("suspect", 0, counted.suspect ? 1 : 0);
  expect("rctime not older than the newest ctime", 1, counted.rctime_ns >= sum.ctime_ns ? 1 : 0);
  TimeNs& seen = rctime_seen_[dir.index];
  expect("rctime never going back", 1, counted.rctime_ns >= seen ? 1 : 0);
  seen = counted.rctime_ns;
  return sum;
}

std::string AccountsModel::difference(Suspects suspects) {
  std::string found;
  recount(*dirs_.front(), suspects, found);
  int64_t orphaned = 0;
  std::set<const File*> met;
  for (const FilePtr& file : open_files_)
    if (file->names == 0 && file->external == 0 && met.insert(file.get()).second)
      orphaned += file->size.count;
  if (found.empty() && orphaned != accounts_->orphan_bytes().count)
    found = "orphan_bytes is " + std::to_string(accounts_->orphan_bytes().count) + ", recounted " +
            std::to_string(orphaned) + " after " + last_operation_;
  return found;
}

}  // namespace tally::test
