#include "core/directory_reader.hpp"

#include <algorithm>

namespace tally {

namespace {

bool is_dot(const char* name) { return name[0] == '.' && name[1] == '\0'; }
bool is_dot_dot(const char* name) { return name[0] == '.' && name[1] == '.' && name[2] == '\0'; }

}  // namespace

Result<bool> DirectoryReader::fill(int fd, std::size_t size_bytes) {
  const ssize_t got = ::getdents64(fd, buffer_.data(), std::min(size_bytes, buffer_size_bytes));
  read_bytes_ = 0;
  filled_bytes_ = got > 0 ? static_cast<std::size_t>(got) : 0;
  if (got < 0) return last_error();
  return got > 0;
}

const char* DirectoryReader::next() {
  const dirent64* entry = next_entry();
  return entry == nullptr ? nullptr : entry->d_name;
}

const dirent64* DirectoryReader::next_entry() {
  while (read_bytes_ < filled_bytes_) {
    const auto* entry = reinterpret_cast<const dirent64*>(buffer_.data() + read_bytes_);
    read_bytes_ += entry->d_reclen;
    if (!is_dot(entry->d_name) && !is_dot_dot(entry->d_name)) return entry;
  }
  return nullptr;
}

uint64_t DirectoryReader::own_ino() const {
  if (filled_bytes_ == 0) return 0;
  const auto* first = reinterpret_cast<const dirent64*>(buffer_.data());
  return is_dot(first->d_name) ? first->d_ino : 0;
}

}  // namespace tally
