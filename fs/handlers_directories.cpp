// Open directories: opendir, readdir, readdirplus, fsyncdir, releasedir.

#include <dirent.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/hot_path_guard.hpp"
#include "fs/attributes.hpp"
#include "fs/filesystem.hpp"

namespace tally::fs {

namespace {

/// What the kernel is told of an entry without a lookup: its number and type.
struct stat plain_attributes(const dirent64& entry, const FileKey& directory,
                             uint32_t root_device) {
  struct stat attributes = {};
  attributes.st_ino = visible_inode_number({.ino = entry.d_ino, .dev = directory.dev}, root_device);
  attributes.st_mode = DTTOIF(static_cast<mode_t>(entry.d_type));
  return attributes;
}

bool is_dot_or_dot_dot(const char* name) {
  return std::string_view(name) == "." || std::string_view(name) == "..";
}

Status seek(OpenDirectory& directory, off_t offset) TALLY_REQUIRES(directory.mutex) {
  // A rewound directory is read anew, so that it shows what was made since (rewinddir(3)).
  if (offset == directory.position && offset != 0) return {};
  directory.begin = directory.end = 0;
  if (::lseek(directory.fd.get(), offset, SEEK_SET) < 0) return last_error();
  directory.position = offset;
  return {};
}

Status fill(OpenDirectory& directory) TALLY_REQUIRES(directory.mutex) {
  const long got = ::syscall(SYS_getdents64, directory.fd.get(), directory.entries.data(),
                             directory.entries.size());
  if (got < 0) return last_error();
  directory.begin = 0;
  directory.end = static_cast<std::size_t>(got);
  return {};
}

}  // namespace

Result<OpenDirectory*> Filesystem::opendir(NodeId node) {
  TALLY_HOT_PATH("opendir");
  const auto inode = inodes_.pin(node);
  if (!inode) return std::unexpected(inode.error());
  auto fd = reopen(inode->fd(), O_RDONLY | O_DIRECTORY);
  if (!fd) return std::unexpected(fd.error());
  OpenDirectory* const directory = open_directories_.make(inode->share(), *std::move(fd));
  if (directory == nullptr) return failure(ENFILE);
  return directory;
}

/// Whether an entry is not to be listed, because it is left out.
bool Filesystem::is_hidden(const OpenDirectory& directory, const char* name) {
  if (!options_.one_file_system || is_dot_or_dot_dot(name)) return false;
  if (!check_not_own(directory.fd.get(), name)) return true;
  const auto stat = stat_at(directory.fd.get(), name);
  return stat && is_left_out(stat->key);
}

/// Gives the entries from `offset` on to `add`, which says whether there was room for one.
template <class Add>
Status Filesystem::list(OpenDirectory& directory, off_t offset, Add add) {
  MutexLock lock(directory.mutex);
  if (const Status sought = seek(directory, offset); !sought) return sought;
  while (true) {
    if (directory.begin == directory.end) {
      if (const Status filled = fill(directory); !filled) return filled;
      if (directory.end == 0) return {};
    }
    const auto& entry =
        *reinterpret_cast<const dirent64*>(directory.entries.data() + directory.begin);
    if (!is_hidden(directory, entry.d_name) && !add(entry)) return {};
    directory.begin += entry.d_reclen;
    directory.position = entry.d_off;
  }
}

Result<std::size_t> Filesystem::readdir(OpenDirectory& directory, off_t offset,
                                        std::span<char> reply) {
  TALLY_HOT_PATH("readdir");
  std::size_t used = 0;
  const Status listed = list(directory, offset, [&](const dirent64& entry) {
    const struct stat attributes = plain_attributes(entry, directory.inode->key(), root_device_);
    const std::size_t needed = fuse_add_direntry(nullptr, reply.data() + used, reply.size() - used,
                                                 entry.d_name, &attributes, entry.d_off);
    if (needed > reply.size() - used) return false;
    used += needed;
    return true;
  });
  // What was read before an error is delivered; the error comes again with the next request.
  if (!listed && used == 0) return std::unexpected(listed.error());
  return used;
}

Result<std::size_t> Filesystem::readdirplus(OpenDirectory& directory, off_t offset,
                                            std::span<char> reply) {
  TALLY_HOT_PATH("readdirplus");
  const auto parent = inodes_.pin(directory.inode);
  if (!parent) return std::unexpected(parent.error());
  std::size_t used = 0;
  const Status listed = list(directory, offset, [&](const dirent64& entry) {
    // Asked first how much it takes, so that an entry without room is not looked up.
    const std::size_t needed =
        fuse_add_direntry_plus(nullptr, nullptr, 0, entry.d_name, nullptr, 0);
    if (needed > reply.size() - used) return false;
    const fuse_entry_param looked_up = entry_to_list(*parent, entry);
    fuse_add_direntry_plus(nullptr, reply.data() + used, reply.size() - used, entry.d_name,
                           &looked_up, entry.d_off);
    used += needed;
    return true;
  });
  if (!listed && used == 0) return std::unexpected(listed.error());
  return used;
}

void Filesystem::forget_listed(std::span<const char> entries) {
  while (!entries.empty()) {
    const auto& listed = *reinterpret_cast<const fuse_direntplus*>(entries.data());
    if (listed.entry_out.nodeid != 0) inodes_.forget(listed.entry_out.nodeid, 1);
    entries = entries.subspan(FUSE_DIRENTPLUS_SIZE(&listed));
  }
}

/// An entry as looked up; or, for "." and ".." and one that can't be looked up (gone since it was
/// read), without a node id, which tells the kernel its number and type only.
fuse_entry_param Filesystem::entry_to_list(const PinnedInode& parent, const dirent64& listed) {
  if (!is_dot_or_dot_dot(listed.d_name)) {
    if (const auto found = find(parent, listed.d_name)) return entry(*found);
  }
  fuse_entry_param plain = {};
  plain.attr = plain_attributes(listed, parent->key(), root_device_);
  return plain;
}

Status Filesystem::fsyncdir(OpenDirectory& directory, bool data_only) {
  TALLY_HOT_PATH("fsyncdir");
  const int fd = directory.fd.get();
  if ((data_only ? ::fdatasync(fd) : ::fsync(fd)) != 0) return last_error();
  return {};
}

void Filesystem::releasedir(OpenDirectory* directory) {
  TALLY_HOT_PATH("releasedir");
  static_cast<void>(open_directories_.destroy(directory));
}

}  // namespace tally::fs
