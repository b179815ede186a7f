#include "tests/mount/parity_table.hpp"

#include "core/human_text.hpp"
#include "tests/mount/parity_suite.hpp"

namespace tally::test {
namespace {

constexpr const char* introduction = R"(# Parity: the same call natively and through the mount

Written by the parity suite from its own lists (`parity_suite*.cpp`); a test compares this page with them, so it can't go stale.
After changing them: `build/release/bin/mount_tests "PARITY.md is written anew"`.

Each **combination** is one variant of a system call, made on one target with one credential, once natively and once through a mount over
the same kind of filesystem. Compared are the result, errno and what the call has told; then, of the target, its parent and everything
else that the call could reach: type, mode, owner, group, link count, device, size, content, extended attributes, atime and mtime to the nanosecond
where they were set, and whether atime, mtime and ctime moved. After each credential every counter of every directory is compared with a recount.

)";

constexpr const char* differences_known = R"(
## What differs, and why

None of these is a combination above: they are the kernel's doing before, or instead of, asking a FUSE filesystem.

| call | natively | on the mount |
|---|---|---|
| `stat` of a directory | the size of its own blocks | the bytes below it; `-o dirsize=native` turns it off |
| `setxattr` of `user.tally.…` and `ceph.dir.…` | an attribute like any other | EPERM: these are counters |
| `read`, `mmap`, `execve` of what the kernel has cached | may move atime | do not: FUSE is not asked (fs/fuse/inode.c, S_NOATIME) |
| `write` to a fifo or device | moves its mtime and ctime | does not: it never leaves the kernel |
| `fallocate` with COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE | as the filesystem has it | EOPNOTSUPP (fs/fuse/file.c) |
| `lseek` beyond the largest file, SEEK_SET | EINVAL | the position; the write there fails with EFBIG as natively |
| `fallocate`, `truncate`, `write` that the filesystem below refuses (not supported, too large) | change nothing | fail as natively, but set-id bits and capabilities of the file may be cleared by then |
| a store to a shared mapping of a file with capabilities | keeps them | clears them when the page is written back |
| `statx` with AT_STATX_DONT_SYNC | the birth time, too | without it |
| `pathconf(_PC_LINK_MAX)` | the filesystem's | glibc knows none for FUSE and says 127; `link` goes on to the filesystem's own EMLINK |
| `pathconf(_PC_FILESIZEBITS)` | the filesystem's | glibc knows none for FUSE and says 32 |
| `read`, `write` of O_DIRECT files that are not aligned | EINVAL | succeed |
| a store to a shared mapping where there is no room | SIGBUS | no signal: `msync` and `fsync` tell |
| `statfs` f_type, f_fsid; `statx` stx_attributes, stx_dio_* | the filesystem's | FUSE's |
| `access(W_OK)` of what is immutable (chattr +i) | EPERM | 0; the write itself fails with EPERM as natively |
| `fchown(fd, -1, -1)` on another's open file with set-id bits | EPERM | 0, and nothing changes |
| FICLONE, other ioctls than those for file attributes | as the filesystem has it | ENOTTY or EOPNOTSUPP |
)";

std::string number(size_t value) { return count_text(value); }

std::string calls_table() {
  std::string text =
      "| system call | variants | combinations | what the variants are |\n|---|---:|---:|---|\n";
  for (const SystemCall& call : suite_calls()) {
    std::string names;
    for (const Variant& variant : call.variants)
      names += (names.empty() ? "" : "; ") + variant.name;
    text += "| `" + call.name + "` | " + number(call.variants.size()) + " | " +
            number(cells_of(call)) + " | " + names + " |\n";
  }
  return text;
}

size_t cells_of_all() {
  size_t all = 0;
  for (const SystemCall& call : suite_calls())
    all += cells_of(call);
  return all;
}

}  // namespace

std::string parity_count() { return number(cells_of_all()); }

std::string parity_table() {
  size_t variants = 0;
  for (const SystemCall& call : suite_calls())
    variants += call.variants.size();
  std::string text = introduction;
  text += "**" + parity_count() + " combinations**: " + number(variants) + " variants of " +
          number(suite_calls().size()) + " system calls × " + number(suite_targets().size()) +
          " targets × " + number(suite_credentials().size()) + " credentials.\n\n";
  text += calls_table();
  text += "\n## Credentials\n\n";
  for (const Credential& credential : suite_credentials())
    text += "- " + credential.name + "\n";
  text += "\n## Targets\n\n";
  for (const Target& target : suite_targets())
    text += "- " + target.name + "\n";
  return text + differences_known;
}

}  // namespace tally::test
