#include "tests/model/model_tree.hpp"

#include <algorithm>

namespace tally::test {

namespace {

template <class T>
T& at_number(std::vector<T>& things, uint32_t number, const T& nothing) {
  if (number >= things.size()) things.resize(std::size_t{number} + 1, nothing);
  return things[number];
}

}  // namespace

bool ModelTree::is_fresh_name(uint32_t name) const {
  return name >= names_.size() || names_[name].file == none;
}

bool ModelTree::is_fresh_dir(uint32_t dir) const {
  return dir >= dirs_.size() || dirs_[dir].ino == 0;
}

bool ModelTree::is_fresh_handle(uint32_t handle) const {
  return handle >= handles_.size() || handles_[handle] == none;
}

uint32_t ModelTree::add_file(Bytes size, Blocks blocks) {
  File& made = files_.emplace_back();
  made.ino = next_ino_++;
  made.size = size;
  made.blocks = blocks;
  return static_cast<uint32_t>(files_.size() - 1);
}

void ModelTree::add_name(uint32_t name, uint32_t file, uint32_t dir) {
  at_number(names_, name, {}) = {.file = file, .dir = dir};
  live_names_.add(name);
  if (files_[file].names.empty()) named_files_.add(file);
  files_[file].names.push_back(name);
  ++dirs_[dir].files;
}

void ModelTree::remove_name(uint32_t name) {
  const Name& gone = names_[name];
  live_names_.remove(name);
  std::erase(files_[gone.file].names, name);
  if (files_[gone.file].names.empty()) named_files_.remove(gone.file);
  --dirs_[gone.dir].files;
}

void ModelTree::move_name(uint32_t name, uint32_t to) {
  --dirs_[names_[name].dir].files;
  ++dirs_[to].files;
  names_[name].dir = to;
}

ModelTree::Dir& ModelTree::add_dir(uint32_t dir, uint32_t parent) {
  Dir& made = at_number(dirs_, dir, {});
  made.ino = next_ino_++;
  made.parent = parent;
  live_dirs_.add(dir);
  if (parent != none) ++dirs_[parent].subdirs;
  return made;
}

void ModelTree::remove_dir(uint32_t dir) {
  live_dirs_.remove(dir);
  --dirs_[dirs_[dir].parent].subdirs;
}

void ModelTree::move_dir(uint32_t dir, uint32_t to) {
  --dirs_[dirs_[dir].parent].subdirs;
  ++dirs_[to].subdirs;
  dirs_[dir].parent = to;
}

void ModelTree::add_handle(uint32_t handle, uint32_t file) {
  at_number(handles_, handle, none) = file;
  live_handles_.add(handle);
  ++files_[file].handles;
}

void ModelTree::remove_handle(uint32_t handle) {
  live_handles_.remove(handle);
  --files_[handles_[handle]].handles;
}

bool ModelTree::is_at_or_below(uint32_t dir, uint32_t ancestor) const {
  while (dir != none && dir != ancestor)
    dir = dirs_[dir].parent;
  return dir != none;
}

FileStat ModelTree::stat_of(const File& file) {
  return {.key = {.ino = file.ino, .dev = 1},
          .mode = S_IFREG | 0644,
          .nlink = static_cast<uint32_t>(file.names.size()) + file.external,
          .size = file.size,
          .blocks = file.blocks,
          .ctime_ns = file.ctime_ns};
}

FileStat ModelTree::stat_of(const Dir& dir) {
  return {.key = {.ino = dir.ino, .dev = 1},
          .mode = S_IFDIR | 0755,
          .nlink = 2,
          .size = {4096},
          .blocks = dir.blocks,
          .ctime_ns = dir.ctime_ns};
}

}  // namespace tally::test
