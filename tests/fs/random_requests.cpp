#include "tests/fs/random_requests.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

namespace tally::test {

namespace {

constexpr int to_set_size = FUSE_SET_ATTR_SIZE;

/// `path` with its beginning `from` replaced, if it is `from` or below it.
std::string moved(const std::string& path, const std::string& from, const std::string& to) {
  if (path == from) return to;
  return path.starts_with(from + "/") ? to + path.substr(from.size()) : path;
}

}  // namespace

RandomRequests::RandomRequests(fs::Filesystem& filesystem, const std::string& folder, uint64_t seed)
    : filesystem_(filesystem),
      caller_{.uid = ::geteuid(), .gid = ::getegid(), .pid = ::getpid()},
      random_(seed) {
  // As far as paths can be named; fifos would block who opens them.
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator entry(folder, error), end;
       !error && entry != end; entry.increment(error)) {
    const std::string path = entry->path().string().substr(folder.size() + 1);
    const auto type = entry->symlink_status().type();
    if (type == std::filesystem::file_type::directory) directories_.push_back(path);
    if (type == std::filesystem::file_type::regular) files_.push_back(path);
  }
  std::ranges::sort(directories_);
  std::ranges::sort(files_);
}

RandomRequests::~RandomRequests() {
  for (const fs::NodeId node : looked_up_)
    filesystem_.forget(node, 1);
}

std::string RandomRequests::log() const {
  std::string text;
  for (const std::string& line : log_)
    text += line + '\n';
  return text;
}

std::string RandomRequests::any_of(const std::vector<std::string>& paths) {
  return paths.empty() ? "none" : paths[below(paths.size())];
}

std::string RandomRequests::new_path() {
  const std::string parent = any_of(directories_);
  return (parent.empty() ? "" : parent + "/") + "new" + std::to_string(++names_made_);
}

/// The node of a path, each component looked up; 0 if there is none.
fs::NodeId RandomRequests::find(const std::string& path) {
  fs::NodeId node = FUSE_ROOT_ID;
  for (std::size_t begin = 0; begin < path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const auto found = filesystem_.lookup(node, path.substr(begin, end - begin).c_str());
    if (!found) return 0;
    node = found->ino;
    looked_up_.push_back(node);
    begin = end + 1;
  }
  return node;
}

RandomRequests::Parent RandomRequests::parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {.node = FUSE_ROOT_ID, .name = path};
  return {.node = find(path.substr(0, slash)), .name = path.substr(slash + 1)};
}

/// So that some inodes are met again that nothing is known of any more.
void RandomRequests::forget_some() {
  while (looked_up_.size() > 40) {
    std::swap(looked_up_[below(looked_up_.size())], looked_up_.back());
    filesystem_.forget(looked_up_.back(), 1);
    looked_up_.pop_back();
  }
}

void RandomRequests::step() {
  constexpr void (RandomRequests::* changes[])() = {
      &RandomRequests::create, &RandomRequests::write,          &RandomRequests::truncate,
      &RandomRequests::unlink, &RandomRequests::make_directory, &RandomRequests::remove_directory,
      &RandomRequests::rename, &RandomRequests::rename,         &RandomRequests::link};
  (this->*changes[below(std::size(changes))])();
  forget_some();
}

void RandomRequests::create() {
  const std::string path = new_path();
  const Parent parent = parent_of(path);
  const auto made = filesystem_.create(caller_, parent.node, parent.name.c_str(), 0644, O_WRONLY);
  log_.push_back("create " + path);
  if (!made) return;
  looked_up_.push_back(made->entry.ino);
  const std::string data(below(5000), 'd');
  static_cast<void>(filesystem_.write(caller_, *made->opened.file, data, 0,
                                      fs::Filesystem::WriteKind::at_offset));
  filesystem_.release(made->opened.file);
  files_.push_back(path);
}

void RandomRequests::write() {
  const std::string path = any_of(files_);
  const auto opened = filesystem_.open(caller_, find(path), O_WRONLY | O_NOFOLLOW);
  log_.push_back("write " + path);
  if (!opened) return;
  const std::string data(1 + below(3000), 'w');
  static_cast<void>(filesystem_.write(caller_, *opened->file, data, static_cast<off_t>(below(9000)),
                                      fs::Filesystem::WriteKind::at_offset));
  filesystem_.release(opened->file);
}

void RandomRequests::truncate() {
  const std::string path = any_of(files_);
  struct stat wanted = {};
  wanted.st_size = static_cast<off_t>(below(10'000));
  static_cast<void>(filesystem_.setattr(caller_, find(path), wanted, to_set_size, nullptr));
  log_.push_back("truncate " + path);
}

void RandomRequests::unlink() {
  const std::string path = any_of(files_);
  const Parent parent = parent_of(path);
  log_.push_back("unlink " + path);
  if (filesystem_.unlink(parent.node, parent.name.c_str())) std::erase(files_, path);
}

void RandomRequests::make_directory() {
  const std::string path = new_path();
  const Parent parent = parent_of(path);
  const auto made = filesystem_.mkdir(caller_, parent.node, parent.name.c_str(), 0755);
  log_.push_back("mkdir " + path);
  if (!made) return;
  looked_up_.push_back(made->ino);
  directories_.push_back(path);
}

void RandomRequests::remove_directory() {
  const std::string path = any_of(directories_);
  if (path.empty()) return;
  const Parent parent = parent_of(path);
  log_.push_back("rmdir " + path);
  if (filesystem_.rmdir(parent.node, parent.name.c_str())) std::erase(directories_, path);
}

void RandomRequests::rename() {
  const bool is_directory = below(2) == 0;
  const std::string from = any_of(is_directory ? directories_ : files_);
  const std::string to = new_path();
  if (from.empty() || to.starts_with(from + "/")) return;
  const Parent old_parent = parent_of(from);
  const Parent new_parent = parent_of(to);
  log_.push_back("rename " + from + " " + to);
  if (!filesystem_.rename(caller_, old_parent.node, old_parent.name.c_str(), new_parent.node,
                          new_parent.name.c_str(), 0))
    return;
  for (std::string& path : directories_)
    path = moved(path, from, to);
  for (std::string& path : files_)
    path = moved(path, from, to);
}

void RandomRequests::link() {
  const std::string path = any_of(files_);
  const std::string to = new_path();
  const fs::NodeId node = find(path);
  const Parent parent = parent_of(to);
  const auto linked = filesystem_.link(node, parent.node, parent.name.c_str());
  log_.push_back("link " + path + " " + to);
  if (!linked) return;
  looked_up_.push_back(linked->ino);
  files_.push_back(to);
}

}  // namespace tally::test
