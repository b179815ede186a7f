#include "fs/operations.hpp"

#include <limits.h>
#include <pthread.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>

#include "fs/filesystem.hpp"

// Each function here takes a request apart, has the Filesystem do it, and replies. The Filesystem's
// hot path section ends when it returns: libfuse allocates when it replies.
//
// When a reply can't be delivered, the kernel has not taken what it hands over (a lookup, a
// handle), and it is taken back.

namespace tally::fs {

namespace {

/// libfuse ends its threads for io_uring with pthread_cancel (lib/fuse_uring.c,
/// fuse_session_destruct_uring) after it has woken them, which would do. It must not end one amid a
/// request: what destructors call, such as close(2), may be where it would happen.
void keep_from_being_cancelled() {
  thread_local const int refused = ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  static_cast<void>(refused);
}

Filesystem& filesystem_of(fuse_req_t req) {
  keep_from_being_cancelled();
  return *static_cast<Filesystem*>(fuse_req_userdata(req));
}

Caller caller_of(fuse_req_t req) {
  const fuse_ctx& context = *fuse_req_ctx(req);
  return {.uid = context.uid, .gid = context.gid, .pid = context.pid, .umask = context.umask};
}

OpenFile& file_of(const fuse_file_info* fi) { return *reinterpret_cast<OpenFile*>(fi->fh); }

OpenDirectory& directory_of(const fuse_file_info* fi) {
  return *reinterpret_cast<OpenDirectory*>(fi->fh);
}

template <class Handle>
uint64_t handle_of(Handle* opened) {
  return reinterpret_cast<uint64_t>(opened);
}

// --- Replies that several requests share -----------------------------------------------------

void reply_status(fuse_req_t req, const Status& done) {
  fuse_reply_err(req, done ? 0 : done.error().value);
}

void reply_entry(fuse_req_t req, const Result<fuse_entry_param>& entry) {
  Filesystem& fs = filesystem_of(req);
  if (!entry) {
    fuse_reply_err(req, entry.error().value);
  } else if (fuse_reply_entry(req, &*entry) != 0) {
    fs.forget(entry->ino, 1);
  }
}

void reply_attributes(fuse_req_t req, const Result<struct stat>& attributes) {
  if (!attributes) {
    fuse_reply_err(req, attributes.error().value);
  } else {
    fuse_reply_attr(req, &*attributes, filesystem_of(req).options().attribute_timeout_s);
  }
}

void reply_created(fuse_req_t req, const Result<Filesystem::Created>& created, fuse_file_info* fi) {
  Filesystem& fs = filesystem_of(req);
  if (!created) {
    fuse_reply_err(req, created.error().value);
    return;
  }
  fi->fh = handle_of(created->opened.file);
  fi->keep_cache = created->opened.keep_cache;
  if (fuse_reply_create(req, &created->entry, fi) != 0) {
    fs.release(created->opened.file);
    fs.forget(created->entry.ino, 1);
  }
}

void reply_written(fuse_req_t req, const Result<std::size_t>& size_bytes) {
  if (!size_bytes) {
    fuse_reply_err(req, size_bytes.error().value);
  } else {
    fuse_reply_write(req, *size_bytes);
  }
}

template <class Byte>
void reply_bytes(fuse_req_t req, const Result<std::span<Byte>>& bytes) {
  if (!bytes) {
    fuse_reply_err(req, bytes.error().value);
  } else {
    fuse_reply_buf(req, reinterpret_cast<const char*>(bytes->data()), bytes->size());
  }
}

/// The first `size_bytes` of `buffer`, or the error.
Result<std::span<char>> front_of(std::span<char> buffer, const Result<std::size_t>& size_bytes) {
  if (!size_bytes) return std::unexpected(size_bytes.error());
  return buffer.first(*size_bytes);
}

/// A value of an extended attribute, or its size where the request had no room for it.
void reply_xattr(fuse_req_t req, std::span<char> room, const Result<std::size_t>& size_bytes) {
  if (size_bytes && room.empty()) {
    fuse_reply_xattr(req, *size_bytes);
  } else {
    reply_bytes(req, front_of(room, size_bytes));
  }
}

std::span<char> as_chars(std::span<std::byte> bytes, std::size_t size_bytes_max) {
  return {reinterpret_cast<char*>(bytes.data()), std::min(bytes.size(), size_bytes_max)};
}

// --- Lookup and attributes -------------------------------------------------------------------

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  reply_entry(req, filesystem_of(req).lookup(parent, name));
}

void forget(fuse_req_t req, fuse_ino_t node, uint64_t lookups) {
  filesystem_of(req).forget(node, lookups);
  fuse_reply_none(req);
}

void forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets) {
  for (const fuse_forget_data& one : std::span(forgets, count))
    filesystem_of(req).forget(one.ino, one.nlookup);
  fuse_reply_none(req);
}

void getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info* fi) {
  OpenFile* const file = fi != nullptr ? &file_of(fi) : nullptr;
  reply_attributes(req, filesystem_of(req).getattr(node, file));
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
void statx(fuse_req_t req, fuse_ino_t node, int, int, fuse_file_info* fi) {
  Filesystem& fs = filesystem_of(req);
  auto stx = fs.statx(node, fi != nullptr ? &file_of(fi) : nullptr);
  if (!stx) {
    fuse_reply_err(req, stx.error().value);
  } else {
    fuse_reply_statx(req, 0, &*stx, fs.options().attribute_timeout_s);
  }
}
#endif

void setattr(fuse_req_t req, fuse_ino_t node, struct stat* wanted, int to_set, fuse_file_info* fi) {
  OpenFile* const file = fi != nullptr ? &file_of(fi) : nullptr;
  reply_attributes(req, filesystem_of(req).setattr(caller_of(req), node, *wanted, to_set, file));
}

void readlink(fuse_req_t req, fuse_ino_t node) {
  std::array<char, PATH_MAX> target;
  reply_bytes(req, front_of(target, filesystem_of(req).readlink(node, target)));
}

void statfs(fuse_req_t req, fuse_ino_t node) {
  const auto statistics = filesystem_of(req).statfs(node);
  if (!statistics) {
    fuse_reply_err(req, statistics.error().value);
  } else {
    fuse_reply_statfs(req, &*statistics);
  }
}

// --- Names -----------------------------------------------------------------------------------

void mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  reply_entry(req, filesystem_of(req).mknod(caller_of(req), parent, name, mode, device));
}

void mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) {
  reply_entry(req, filesystem_of(req).mkdir(caller_of(req), parent, name, mode));
}

void symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) {
  reply_entry(req, filesystem_of(req).symlink(caller_of(req), parent, name, target));
}

void link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char* name) {
  reply_entry(req, filesystem_of(req).link(node, parent, name));
}

void unlink(fuse_req_t req, fuse_ino_t parent, const char* name) {
  reply_status(req, filesystem_of(req).unlink(parent, name));
}

void rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) {
  reply_status(req, filesystem_of(req).rmdir(parent, name));
}

void rename(fuse_req_t req, fuse_ino_t from, const char* name, fuse_ino_t to, const char* new_name,
            unsigned flags) {
  reply_status(req, filesystem_of(req).rename(caller_of(req), from, name, to, new_name, flags));
}

// --- Open files ------------------------------------------------------------------------------

void open(fuse_req_t req, fuse_ino_t node, fuse_file_info* fi) {
  Filesystem& fs = filesystem_of(req);
  const auto opened = fs.open(caller_of(req), node, fi->flags);
  if (!opened) {
    fuse_reply_err(req, opened.error().value);
    return;
  }
  fi->fh = handle_of(opened->file);
  fi->keep_cache = opened->keep_cache;
  if (fuse_reply_open(req, fi) != 0) fs.release(opened->file);
}

void create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* fi) {
  const auto created = filesystem_of(req).create(caller_of(req), parent, name, mode, fi->flags);
  reply_created(req, created, fi);
}

void tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, fuse_file_info* fi) {
  reply_created(req, filesystem_of(req).tmpfile(caller_of(req), parent, mode, fi->flags), fi);
}

void release(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  filesystem_of(req).release(&file_of(fi));
  fuse_reply_err(req, 0);
}

void read(fuse_req_t req, fuse_ino_t, size_t size_bytes, off_t offset, fuse_file_info* fi) {
  Filesystem& fs = filesystem_of(req);
  auto buffer = fs.buffers().lease();
  reply_bytes(req, fs.read(file_of(fi), buffer, size_bytes, offset));
}

void write(fuse_req_t req, fuse_ino_t, const char* data, size_t size_bytes, off_t offset,
           fuse_file_info* fi) {
  auto kind = Filesystem::WriteKind::at_offset;
  if (fi->flags & O_APPEND) kind = Filesystem::WriteKind::append;
  if (fi->writepage) kind = Filesystem::WriteKind::from_mapping;
  reply_written(req, filesystem_of(req).write(caller_of(req), file_of(fi),
                                              std::span(data, size_bytes), offset, kind));
}

void flush(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  reply_status(req, filesystem_of(req).flush(file_of(fi)));
}

void fsync(fuse_req_t req, fuse_ino_t, int data_only, fuse_file_info* fi) {
  reply_status(req, filesystem_of(req).fsync(file_of(fi), data_only != 0));
}

void fallocate(fuse_req_t req, fuse_ino_t, int mode, off_t offset, off_t length,
               fuse_file_info* fi) {
  reply_status(req,
               filesystem_of(req).fallocate(caller_of(req), file_of(fi), mode, offset, length));
}

void copy_file_range(fuse_req_t req, fuse_ino_t, off_t source_offset, fuse_file_info* source,
                     fuse_ino_t, off_t target_offset, fuse_file_info* target, size_t size_bytes,
                     int flags) {
  reply_written(req, filesystem_of(req).copy_file_range(
                         caller_of(req), file_of(source), source_offset, file_of(target),
                         target_offset, size_bytes, static_cast<unsigned>(flags)));
}

void lseek(fuse_req_t req, fuse_ino_t, off_t offset, int whence, fuse_file_info* fi) {
  const auto found = filesystem_of(req).lseek(file_of(fi), offset, whence);
  if (!found) {
    fuse_reply_err(req, found.error().value);
  } else {
    fuse_reply_lseek(req, *found);
  }
}

void ioctl(fuse_req_t req, fuse_ino_t, unsigned command, void*, fuse_file_info* fi, unsigned flags,
           const void* input, size_t input_size_bytes, size_t output_size_bytes) {
  if (flags & FUSE_IOCTL_DIR) {
    fuse_reply_err(req, ENOTTY);  // the handle is that of a directory
    return;
  }
  std::array<char, 64> output;
  const auto result =
      filesystem_of(req).ioctl(caller_of(req), file_of(fi), command,
                               std::span(static_cast<const char*>(input), input_size_bytes),
                               std::span(output).first(std::min(output.size(), output_size_bytes)));
  if (!result) {
    fuse_reply_err(req, result.error().value);
  } else {
    fuse_reply_ioctl(req, 0, output.data(), *result);
  }
}

// --- Open directories ------------------------------------------------------------------------

void opendir(fuse_req_t req, fuse_ino_t node, fuse_file_info* fi) {
  Filesystem& fs = filesystem_of(req);
  const auto opened = fs.opendir(node);
  if (!opened) {
    fuse_reply_err(req, opened.error().value);
    return;
  }
  fi->fh = handle_of(*opened);
  if (fuse_reply_open(req, fi) != 0) fs.releasedir(*opened);
}

void readdir(fuse_req_t req, fuse_ino_t, size_t size_bytes, off_t offset, fuse_file_info* fi) {
  Filesystem& fs = filesystem_of(req);
  const auto buffer = fs.buffers().lease();
  const std::span<char> room = as_chars(buffer.bytes(), size_bytes);
  reply_bytes(req, front_of(room, fs.readdir(directory_of(fi), offset, room)));
}

void readdirplus(fuse_req_t req, fuse_ino_t, size_t size_bytes, off_t offset, fuse_file_info* fi) {
  Filesystem& fs = filesystem_of(req);
  const auto buffer = fs.buffers().lease();
  const std::span<char> room = as_chars(buffer.bytes(), size_bytes);
  const auto listed = front_of(room, fs.readdirplus(directory_of(fi), offset, room));
  if (!listed) {
    fuse_reply_err(req, listed.error().value);
  } else if (fuse_reply_buf(req, listed->data(), listed->size()) != 0) {
    fs.forget_listed(*listed);
  }
}

void fsyncdir(fuse_req_t req, fuse_ino_t, int data_only, fuse_file_info* fi) {
  reply_status(req, filesystem_of(req).fsyncdir(directory_of(fi), data_only != 0));
}

void releasedir(fuse_req_t req, fuse_ino_t, fuse_file_info* fi) {
  filesystem_of(req).releasedir(&directory_of(fi));
  fuse_reply_err(req, 0);
}

// --- Extended attributes ---------------------------------------------------------------------

/// The largest value and the largest list that the kernel passes on (XATTR_SIZE_MAX,
/// XATTR_LIST_MAX).
using XattrBuffer = std::array<char, 65536>;

void getxattr(fuse_req_t req, fuse_ino_t node, const char* name, size_t size_bytes) {
  XattrBuffer value;
  const std::span<char> room = std::span(value).first(std::min(value.size(), size_bytes));
  reply_xattr(req, room, filesystem_of(req).getxattr(node, name, room));
}

void listxattr(fuse_req_t req, fuse_ino_t node, size_t size_bytes) {
  XattrBuffer names;
  const auto listed = filesystem_of(req).listxattr(caller_of(req), node, names);
  if (listed && size_bytes != 0 && *listed > size_bytes) {
    fuse_reply_err(req, ERANGE);
  } else {
    reply_xattr(req, std::span(names).first(std::min(names.size(), size_bytes)), listed);
  }
}

void setxattr(fuse_req_t req, fuse_ino_t node, const char* name, const char* value,
              size_t size_bytes, int flags) {
  reply_status(req, filesystem_of(req).setxattr(caller_of(req), node, name,
                                                std::span(value, size_bytes), flags));
}

void removexattr(fuse_req_t req, fuse_ino_t node, const char* name) {
  reply_status(req, filesystem_of(req).removexattr(caller_of(req), node, name));
}

fuse_lowlevel_ops make_table() {
  fuse_lowlevel_ops table = {};
  table.lookup = lookup;
  table.forget = forget;
  table.forget_multi = forget_multi;
  table.getattr = getattr;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
  table.statx = statx;
#endif
  table.setattr = setattr;
  table.readlink = readlink;
  table.statfs = statfs;
  table.mknod = mknod;
  table.mkdir = mkdir;
  table.symlink = symlink;
  table.link = link;
  table.unlink = unlink;
  table.rmdir = rmdir;
  table.rename = rename;
  table.open = open;
  table.create = create;
  table.tmpfile = tmpfile;
  table.release = release;
  table.read = read;
  table.write = write;
  table.flush = flush;
  table.fsync = fsync;
  table.fallocate = fallocate;
  table.copy_file_range = copy_file_range;
  table.lseek = lseek;
  table.ioctl = ioctl;
  table.opendir = opendir;
  table.readdir = readdir;
  table.readdirplus = readdirplus;
  table.fsyncdir = fsyncdir;
  table.releasedir = releasedir;
  table.getxattr = getxattr;
  table.listxattr = listxattr;
  table.setxattr = setxattr;
  table.removexattr = removexattr;
  return table;
}

}  // namespace

const fuse_lowlevel_ops& operations() {
  static const fuse_lowlevel_ops table = make_table();
  return table;
}

}  // namespace tally::fs
