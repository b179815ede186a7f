// A lower filesystem of the kind that some networks have: it knows files by their paths only, so
// that of an inode whose name is gone fstat(2) says ENOENT, even while it is open.
//
//     path_filesystem FOLDER MOUNTPOINT     serves FOLDER, in the foreground, until unmounted

#define FUSE_USE_VERSION 317

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <string>

#include <fuse.h>

namespace {

std::string folder;

std::string below(const char* path) { return folder + path; }

int status_of(int result) { return result < 0 ? -errno : 0; }

int open_as(const char* path, fuse_file_info* info, mode_t mode) {
  const int fd = ::open(below(path).c_str(), info->flags, mode);
  if (fd < 0) return -errno;
  info->fh = static_cast<uint64_t>(fd);
  return 0;
}

int file_of(const fuse_file_info* info) { return static_cast<int>(info->fh); }

int list(const char* path, void* buffer, fuse_fill_dir_t fill, off_t, fuse_file_info*,
         fuse_readdir_flags) {
  DIR* const directory = ::opendir(below(path).c_str());
  if (directory == nullptr) return -errno;
  while (const dirent* const entry = ::readdir(directory)) {
    struct stat attributes = {};
    attributes.st_ino = entry->d_ino;
    attributes.st_mode = DTTOIF(entry->d_type);
    if (fill(buffer, entry->d_name, &attributes, 0, {}) != 0) break;
  }
  ::closedir(directory);
  return 0;
}

void* use_inode_numbers(fuse_conn_info*, fuse_config* config) {
  config->use_ino = 1;
  config->hard_remove = 1;
  return nullptr;
}

fuse_operations operations() {
  fuse_operations table = {};
  table.init = use_inode_numbers;
  table.readdir = list;
  table.getattr = [](const char* path, struct stat* attributes, fuse_file_info*) {
    return status_of(::lstat(below(path).c_str(), attributes));
  };
  table.mkdir = [](const char* path, mode_t mode) {
    return status_of(::mkdir(below(path).c_str(), mode));
  };
  table.rmdir = [](const char* path) { return status_of(::rmdir(below(path).c_str())); };
  table.unlink = [](const char* path) { return status_of(::unlink(below(path).c_str())); };
  table.rename = [](const char* from, const char* to, unsigned flags) {
    return status_of(
        ::renameat2(AT_FDCWD, below(from).c_str(), AT_FDCWD, below(to).c_str(), flags));
  };
  table.create = [](const char* path, mode_t mode, fuse_file_info* info) {
    info->flags |= O_CREAT;
    return open_as(path, info, mode);
  };
  table.open = [](const char* path, fuse_file_info* info) { return open_as(path, info, 0); };
  table.write = [](const char*, const char* data, size_t size, off_t offset, fuse_file_info* info) {
    const ssize_t written = ::pwrite(file_of(info), data, size, offset);
    return written < 0 ? -errno : static_cast<int>(written);
  };
  table.release = [](const char*, fuse_file_info* info) {
    return status_of(::close(file_of(info)));
  };
  return table;
}

}  // namespace

int main(int argument_count, char** arguments) {
  if (argument_count != 3) return 2;
  folder = arguments[1];
  std::string foreground = "-f";
  char* own_arguments[] = {arguments[0], foreground.data(), arguments[2], nullptr};
  const fuse_operations table = operations();
  return fuse_main(static_cast<int>(std::size(own_arguments)) - 1, own_arguments, &table, nullptr);
}
