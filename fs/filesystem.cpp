#include "fs/filesystem.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <spdlog/spdlog.h>

#include "core/direct_file.hpp"
#include "core/hot_path_guard.hpp"
#include "fs/attributes.hpp"
#include "fs/descriptor_path.hpp"
#include "fs/log.hpp"

namespace tally::fs {

namespace {

// How much earlier than the clock a new ctime may be: filesystems keep as little as whole seconds.
constexpr TimeNs timestamp_slack_ns = 2'000'000'000;

UniqueFd open_descriptor_folder() {
  UniqueFd fd(::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) throw std::system_error(errno, std::generic_category(), "/proc/self/fd");
  return fd;
}

AlignedBufferPool make_buffers(const FilesystemOptions& options) {
  auto pool = AlignedBufferPool::create(DirectFile::buffer_alignment_bytes,
                                        options.buffer_size_bytes + DirectFile::buffer_slack_bytes,
                                        options.buffers);
  if (!pool) throw std::invalid_argument(message(pool.error()));
  return *std::move(pool);
}

uint32_t device_of(int fd) {
  const auto stat = stat_fd(fd);
  if (!stat) throw std::system_error(stat.error().value, std::generic_category(), "the source");
  return stat->key.dev;
}

}  // namespace

Filesystem::Filesystem(int source_fd, const FilesystemOptions& options)
    : options_(options),
      began_ns_(now_ns() - timestamp_slack_ns),
      descriptors_(open_descriptor_folder()),
      stale_(options.stale_directories_max),
      accounts_(options.directories_max, options.linked_inodes_max, &stale_),
      budget_(options.descriptors_max),
      direct_budget_(options.direct_descriptors_max),
      inodes_(source_fd, options.inodes_max, budget_, accounts_.tree()),
      buffers_(make_buffers(options)),
      open_files_(options.open_files_max),
      open_directories_(options.open_directories_max),
      root_fd_(source_fd),
      root_device_(device_of(source_fd)) {}

void Filesystem::start() {
  const auto root = inodes_.pin(FUSE_ROOT_ID);
  if (!root) throw std::logic_error("the inode table has no root");
  const auto lock = inodes_.lock(**root);
  DirTree& tree = accounts_.tree();
  if (!tree.root()) {
    const auto stat = stat_fd(root->fd());
    if (!stat) throw std::system_error(stat.error().value, std::generic_category(), "the source");
    const auto made = tree.insert({}, *stat, DirTree::Content::unknown);
    if (!made) throw std::system_error(made.error().value, std::generic_category(), "max_dirs");
    (*root)->dir = *made;
  } else {
    (*root)->dir = tree.hold(tree.key_of(tree.root()));
  }
  (*root)->accounted = true;
}

/// Opens what `fd` (O_PATH will do) has open once more, with flags of its own.
Result<CountedFd> Filesystem::reopen(int fd, int flags) {
  const DescriptorPath self(fd);
  return inodes_.open_descriptor(
      [&] { return ::openat(descriptors_.get(), self.name(), flags | O_CLOEXEC); });
}

/// The inode that goes by `name` now, with whatever happened to it behind our back accounted.
Result<Filesystem::Found> Filesystem::find(const PinnedInode& parent, const char* name) {
  constexpr int attempts_max = 8;
  for (int attempt = 0; attempt < attempts_max; ++attempt) {
    auto found = find_once(parent, name);
    if (found || found.error().value != EAGAIN) return found;
  }
  return failure(ESTALE);  // the kernel looks a name up once more after that
}

/// EAGAIN: something else goes by that name since.
Result<Filesystem::Found> Filesystem::find_once(const PinnedInode& parent, const char* name) {
  auto path_fd = inodes_.open_descriptor(
      [&] { return ::openat(parent.fd(), name, O_PATH | O_NOFOLLOW | O_CLOEXEC); });
  if (!path_fd) return std::unexpected(path_fd.error());
  if (const Status served = check_not_own(path_fd->get(), ""); !served)
    return std::unexpected(served.error());
  const auto seen = stat_fd(path_fd->get());
  if (!seen) return std::unexpected(seen.error());
  if (const Status served = check_served(seen->key, parent.fd(), name); !served)
    return std::unexpected(served.error());
  auto inode = inodes_.find_or_create(*std::move(path_fd), *seen, &*parent, name);
  if (!inode) return std::unexpected(inode.error());

  if (const Status met = meet(*inode, parent, name); !met) return std::unexpected(met.error());
  const auto stx = observe(**inode, inode->fd(), false);
  if (!stx) return std::unexpected(stx.error());
  return Found{.inode = *std::move(inode), .stx = *stx};
}

/// EXDEV if this inode, found as `name`, is to be left out.
Status Filesystem::check_served(const FileKey& key, int parent_fd, const char* name) {
  if (!is_left_out(key)) return {};
  if (left_out_met_.test_and_set()) return failure(EXDEV);
  TALLY_HOT_PATH_PAUSE("logging allocates");
  std::error_code none;
  const auto path_of = [&](int fd) {
    return std::filesystem::read_symlink(DescriptorPath(fd).path(), none);
  };
  const auto parent = path_of(parent_fd).lexically_relative(path_of(root_fd_));
  log_left_out((parent / name).lexically_normal());
  return failure(EXDEV);
}

/// EXDEV if `name` in `fd` (empty: `fd` itself) lies in what we serve. Asks no filesystem.
Status Filesystem::check_not_own(int fd, const char* name) {
  const uint32_t device = own_device_.load(std::memory_order_relaxed);
  if (device == 0) return {};
  struct statx stx;
  constexpr int flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC;
  if (::statx(fd, name, flags, 0, &stx) != 0) return {};  // for the caller to find
  if (pack_dev(stx.stx_dev_major, stx.stx_dev_minor) != device) return {};
  if (!own_mount_met_.test_and_set()) {
    TALLY_HOT_PATH_PAUSE("logging allocates");
    spdlog::warn("left out: this mount itself, which is mounted below its own source, too");
  }
  return failure(EXDEV);
}

/// Accounts an inode that was just found as `name`, unless it is accounted already: see NameLocks.
/// EAGAIN, ENOENT: it does not go by that name any more.
Status Filesystem::meet(const PinnedInode& inode, const PinnedInode& parent, const char* name) {
  {
    const auto lock = inodes_.lock(*inode);
    if (inode->accounted) return {};
  }
  const WriterLock unchanging(names_.of(*parent));
  const auto lock = inodes_.lock(*parent, *inode);
  if (inode->accounted) return {};
  const auto now = stat_entry_at(parent.fd(), name);
  if (!now) return std::unexpected(now.error());
  if (now->stat.key != inode->key()) return failure(EAGAIN);
  account_first_contact(*inode, *parent, *now);
  return {};
}

/// What a reply says that hands an inode to the kernel: counts a lookup of it.
fuse_entry_param Filesystem::entry(const Found& found) {
  inodes_.add_lookup(*found.inode);
  return {.ino = found.inode->id(),
          .generation = 0,  // node ids don't repeat
          .attr = attributes(*found.inode, found.stx),
          .attr_timeout = options_.attribute_timeout_s,
          .entry_timeout = options_.entry_timeout_s};
}

struct stat Filesystem::attributes(const Inode& inode, const struct statx& stx) {
  struct stat attributes = to_stat(stx, root_device_);
  restrict_attributes(attributes, inode.restrictions());
  const DirIndex dir = inode.is_directory() ? inode.dir_now() : DirIndex();
  if (options_.directory_size != DirectorySize::recursive || !dir) return attributes;
  // First watched, then read: a change after the reading is told to the kernel.
  if (options_.attribute_timeout_s > 0) accounts_.tree().watch(dir, inode.id());
  const Bytes rbytes = accounts_.tree().counters(dir).rbytes;
  attributes.st_size = std::max<off_t>(rbytes.count, 0);  // below 0 it is suspect already
  return attributes;
}

}  // namespace tally::fs
