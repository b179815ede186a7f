#pragma once

#include <dirent.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include <fuse_lowlevel.h>

#include "core/accounts.hpp"
#include "core/aligned_buffer_pool.hpp"
#include "core/descriptor_budget.hpp"
#include "core/object_pool.hpp"
#include "core/stale_list.hpp"
#include "core/unique_fd.hpp"
#include "fs/credentials.hpp"
#include "fs/inode_table.hpp"
#include "fs/name_locks.hpp"
#include "fs/open_file.hpp"

namespace tally::fs {

class Auditor;
class Settler;

/// How file data is read from the lower filesystem.
enum class DataPath { direct, buffered };

/// What st_size of a directory says.
enum class DirectorySize { recursive, native };

/// What the mount is told once, before it starts. Capacities are counts of objects; the defaults
/// suit a test.
struct FilesystemOptions {
  DataPath data_path = DataPath::direct;
  DirectorySize directory_size = DirectorySize::recursive;
  bool list_counters = false;    ///< listxattr names the counters of directories
  bool one_file_system = false;  ///< what has another st_dev than the root is not there
  double attribute_timeout_s = 1.0;
  double entry_timeout_s = 1.0;
  uint32_t directories_max = 1 << 20;     ///< nodes of the tree
  uint32_t linked_inodes_max = 1 << 20;   ///< inodes with several names
  uint32_t inodes_max = 1 << 20;          ///< slots of the inode table
  uint32_t descriptors_max = 512;         ///< for requests: cached inodes, open files, directories
  uint32_t direct_descriptors_max = 128;  ///< second ones of open files that are read directly
  uint32_t open_files_max = 1 << 14;
  uint32_t open_directories_max = 1 << 10;
  uint32_t stale_directories_max = 1 << 14;  ///< a power of two
  uint32_t buffers = 16;
  std::size_t buffer_size_bytes = 1 << 20;  ///< the largest read; a multiple of 4 KiB
};

/// The mounted filesystem: what each FUSE request does to the lower directory and to the accounts.
///
/// Every request has one shape: find the inode; do the lower operation; account what is observed
/// afterwards, under the inode's lock; return what the reply says. None of them replies or calls
/// what allocates in libfuse: the table of operations() does, outside of the hot path sections.
///
/// Requests are thread-safe, allocate nothing, and fail with the errno of the lower filesystem.
/// What goes wrong in accounting never fails a request: it makes a directory suspect.
///
/// Assumed of the mount: default_permissions, KILLPRIV_V2, no writeback cache, no splice,
/// POSIX_ACL with DONT_MASK (the umask is applied below), and EXPLICIT_INVAL_DATA instead of
/// AUTO_INVAL_DATA: open() says by itself when the kernel's pages are to be dropped.
class Filesystem {
 public:
  /// `source_fd`: the root of what is mounted, an open directory; it stays the caller's, and open.
  /// Takes all the memory there will be. Throws std::bad_alloc, std::system_error,
  /// std::invalid_argument.
  Filesystem(int source_fd, const FilesystemOptions& options);
  Filesystem(const Filesystem&) = delete;
  Filesystem& operator=(const Filesystem&) = delete;

  /// Before the first request. After a scan the tree is as that left it; without one it has a root
  /// of which nothing is counted yet, for the Auditor to scan.
  void start();

  /// Whoever is to look again, later, at inodes that were written to. Without one they are looked
  /// at when they are released only. Set before the first request, outlives the last.
  void set_settler(Settler* settler) { settler_ = settler; }

  /// A time before anything was counted, in ctimes of the lower filesystem.
  [[nodiscard]] TimeNs began_ns() const { return began_ns_; }

  /// What we serve has this st_dev. It is left out where it is mounted below the source, too: to
  /// ask it for anything would be to wait for ourselves. Before the first request.
  void set_own_device(uint32_t device) { own_device_ = device; }

  /// Whoever scans and audits, for the attributes that tell of it. Null for none.
  void set_auditor(Auditor* auditor) { auditor_ = auditor; }

  enum class Settling {
    written_back,  ///< first waits until the blocks are allocated that it is to have
    as_it_is,
  };
  /// For the Settler's callback: accounts the inode as it is on disk now. Any thread.
  void settle(NodeId node, Settling settling);

  [[nodiscard]] Accounts& accounts() { return accounts_; }
  [[nodiscard]] StaleList& stale() { return stale_; }
  [[nodiscard]] InodeTable& inodes() { return inodes_; }
  [[nodiscard]] AlignedBufferPool& buffers() { return buffers_; }
  [[nodiscard]] const FilesystemOptions& options() const { return options_; }

  // --- Lookup and attributes (handlers_lookup.cpp) ---------------------------------------------
  // A returned fuse_entry_param carries one lookup, which forget(entry.ino, 1) takes back.

  Result<fuse_entry_param> lookup(NodeId parent, const char* name);
  void forget(NodeId node, uint64_t lookups) { inodes_.forget(node, lookups); }
  /// `file`: null unless the request came through a handle, which then need not be opened anew.
  Result<struct stat> getattr(NodeId node, OpenFile* file);
  /// The same, and the birth time, for which the kernel asks in this way.
  Result<struct statx> statx(NodeId node, OpenFile* file);
  /// `to_set`: FUSE_SET_ATTR_* bits; `file` as for getattr().
  Result<struct stat> setattr(const Caller& caller, NodeId node, const struct stat& wanted,
                              int to_set, OpenFile* file);
  /// Returns the length of the target, which is written without a trailing NUL.
  Result<std::size_t> readlink(NodeId node, std::span<char> target);
  Result<struct statvfs> statfs(NodeId node);

  // --- Names (handlers_names.cpp, handlers_rename.cpp) -----------------------------------------

  Result<fuse_entry_param> mknod(const Caller& caller, NodeId parent, const char* name, mode_t mode,
                                 dev_t device);
  Result<fuse_entry_param> mkdir(const Caller& caller, NodeId parent, const char* name,
                                 mode_t mode);
  Result<fuse_entry_param> symlink(const Caller& caller, NodeId parent, const char* name,
                                   const char* target);
  Result<fuse_entry_param> link(NodeId node, NodeId parent, const char* name);
  Status unlink(NodeId parent, const char* name);
  Status rmdir(NodeId parent, const char* name);
  Status rename(const Caller& caller, NodeId from, const char* name, NodeId to,
                const char* new_name, unsigned flags);

  // --- Open files (handlers_open.cpp, handlers_data.cpp) ---------------------------------------

  struct Opened {
    OpenFile* file;
    bool keep_cache;  ///< the pages that the kernel has of it are still right
  };
  struct Created {
    fuse_entry_param entry;
    Opened opened;
  };

  /// `flags` as of open(2).
  Result<Opened> open(const Caller& caller, NodeId node, int flags);
  Result<Created> create(const Caller& caller, NodeId parent, const char* name, mode_t mode,
                         int flags);
  Result<Created> tmpfile(const Caller& caller, NodeId parent, mode_t mode, int flags);
  void release(OpenFile* file);

  /// Reads up to `size_bytes`, or what a buffer holds; fewer at the end of the file only. The bytes
  /// lie in `buffer`.
  Result<std::span<const std::byte>> read(OpenFile& file, AlignedBufferPool::Lease& buffer,
                                          std::size_t size_bytes, off_t offset);
  enum class WriteKind {
    at_offset,
    append,        ///< at the end of the file, wherever that is by now
    from_mapping,  ///< pages of a mapping, at their offset; nobody knows whose
  };
  Result<std::size_t> write(const Caller& caller, OpenFile& file, std::span<const char> data,
                            off_t offset, WriteKind kind);
  Status flush(OpenFile& file);
  Status fsync(OpenFile& file, bool data_only);
  Status fallocate(const Caller& caller, OpenFile& file, int mode, off_t offset, off_t length);
  Result<std::size_t> copy_file_range(const Caller& caller, OpenFile& source, off_t source_offset,
                                      OpenFile& target, off_t target_offset, std::size_t size_bytes,
                                      unsigned flags);
  Result<off_t> lseek(OpenFile& file, off_t offset, int whence);
  /// Allowed: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR; others are
  /// ENOTTY. Returns how many bytes of `output` are the result.
  Result<std::size_t> ioctl(const Caller& caller, OpenFile& file, unsigned command,
                            std::span<const char> input, std::span<char> output);

  // --- Open directories (handlers_directories.cpp) ---------------------------------------------

  Result<OpenDirectory*> opendir(NodeId node);
  /// Fill `reply` with as many entries as fit and return how many bytes these take.
  Result<std::size_t> readdir(OpenDirectory& directory, off_t offset, std::span<char> reply);
  Result<std::size_t> readdirplus(OpenDirectory& directory, off_t offset, std::span<char> reply);
  /// Takes back the lookups in what readdirplus() has filled in, which was not delivered.
  void forget_listed(std::span<const char> entries);
  Status fsyncdir(OpenDirectory& directory, bool data_only);
  void releasedir(OpenDirectory* directory);

  // --- Extended attributes (handlers_xattrs.cpp) -----------------------------------------------

  /// As getxattr(2): with an empty `value` the size that is needed, ERANGE if it is too small.
  Result<std::size_t> getxattr(NodeId node, const char* name, std::span<char> value);
  /// Returns how many bytes of `names`, which must have room for XATTR_LIST_MAX, are the list.
  Result<std::size_t> listxattr(const Caller& caller, NodeId node, std::span<char> names);
  Status setxattr(const Caller& caller, NodeId node, const char* name, std::span<const char> value,
                  int flags);
  Status removexattr(const Caller& caller, NodeId node, const char* name);

 private:
  friend class Recounter;

  struct Found {
    PinnedInode inode;
    struct statx stx;
  };

  /// An inode and a descriptor on it, which lives as long as this object and the open file do.
  struct Target {
    PinnedInode pinned;  // null if the descriptor is the open file's
    Inode& inode;
    int fd;
  };

  // Finding inodes (filesystem.cpp).
  Result<CountedFd> reopen(int fd, int flags);
  Result<Found> find(const PinnedInode& parent, const char* name);
  Result<Found> find_once(const PinnedInode& parent, const char* name);
  [[nodiscard]] bool is_left_out(const FileKey& key) const {
    return options_.one_file_system && key.dev != root_device_;
  }
  Status check_served(const FileKey& key, int parent_fd, const char* name);
  Status check_not_own(int fd, const char* name);
  Status meet(const PinnedInode& inode, const PinnedInode& parent, const char* name);
  fuse_entry_param entry(const Found& found);
  struct stat attributes(const Inode& inode, const struct statx& stx);
  Result<Target> target_of(NodeId node, OpenFile* file);
  Status become_writer(const Caller& caller, int fd);
  Status become_owner(int fd);
  bool is_open(Inode& inode);
  Status change_attributes(const Caller& caller, int fd, const struct stat& wanted, int to_set,
                           OpenFile* file);

  // Accounting (reconcile.cpp). The account_ functions need the locks of all inodes they get.
  Result<struct statx> observe(Inode& inode, int fd, bool mutated);
  void observe_after(OpenFile& file, bool mutated);
  void account_first_contact(Inode& inode, const Inode& parent, const EntryStat& now);
  void account_directory_found(Inode& inode, const Inode& parent, const EntryStat& now);
  void account_observed(Inode& inode, const FileStat& now, bool mutated);
  void account_added(Inode& inode, const Inode& parent, const FileStat& now);
  bool account_removed(const PinnedInode& inode, const Inode& parent);
  uint32_t account_moved(const PinnedInode& inode, const Inode& from, const Inode& to);
  FileStat counted_without_a_name(const Inode& inode);
  void account_parent(const PinnedInode& parent);
  void retire(const PinnedInode& inode);
  bool write_back(const PinnedInode& inode);
  bool look_again(const InodeRef& inode, Settling settling);
  bool settle_later(Inode& inode, bool written);
  void suspect(const Inode& directory);

  // Changing names (handlers_names.cpp, handlers_rename.cpp).
  Result<Found> adopt_created(const PinnedInode& parent, const char* name);
  Result<Found> adopt_created(const PinnedInode& parent, const char* name, CountedFd path_fd);
  Result<fuse_entry_param> entry_of_created(const PinnedInode& parent, const char* name);
  Status remove_name(NodeId parent, const char* name, int flags);
  struct Renamed {
    const PinnedInode& from;
    const PinnedInode& to;
    const char* name;
    const char* new_name;
    const PinnedInode& moved;
    const PinnedInode* target;  // what had the new name before; null if nothing had
    bool is_exchange;
  };
  void account_rename(const Renamed& done);

  // Open files (handlers_open.cpp).
  Result<Opened> enter_open(const PinnedInode& inode, CountedFd fd, bool truncated);
  Result<Created> open_created(const PinnedInode& parent, const char* name, CountedFd fd);

  // Open directories (handlers_directories.cpp).
  template <class Add>
  Status list(OpenDirectory& directory, off_t offset, Add add);
  [[nodiscard]] bool is_hidden(const OpenDirectory& directory, const char* name);
  fuse_entry_param entry_to_list(const PinnedInode& parent, const dirent64& listed);

  // Extended attributes (handlers_xattrs.cpp).
  Result<std::size_t> get_counter(NodeId node, const char* name, std::span<char> value);
  Result<std::size_t> get_audit(std::span<char> value);
  Status set_audit(std::span<const char> value);
  Status become_xattr_setter(const Caller& caller, const char* name) const;
  template <class Change>
  Status change_xattr(NodeId node, const char* name, Change change);

  const FilesystemOptions options_;
  const TimeNs began_ns_;
  const UniqueFd descriptors_;  // /proc/self/fd, where an O_PATH descriptor can be opened anew
  const Credentials credentials_;
  StaleList stale_;
  Accounts accounts_;
  // Cached inodes, open files and open directories draw on one number, so that open files squeeze
  // the cache. Second descriptors have a share of their own: files can be read without, so they
  // must not take the place of one to open, nor a full cache theirs.
  DescriptorBudget budget_;
  DescriptorBudget direct_budget_;
  InodeTable inodes_;
  NameLocks names_;
  AlignedBufferPool buffers_;
  ObjectPool<OpenFile> open_files_;
  ObjectPool<OpenDirectory> open_directories_;
  const int root_fd_;  // the source, as it was given
  uint32_t root_device_;
  std::atomic<uint32_t> own_device_ = 0;
  std::atomic_flag own_mount_met_;
  std::atomic_flag left_out_met_;
  Settler* settler_ = nullptr;
  std::atomic<Auditor*> auditor_ = nullptr;
};

}  // namespace tally::fs
