#pragma once

#include <cstdint>
#include <string>

namespace tally::test {

/// What a fake tree mostly consists of. Every shape also holds empty directories, sparse files,
/// symbolic links (dangling ones too), fifos, sockets, device nodes where the process may make
/// them, and names with spaces, newlines, bytes that are not UTF-8, and 255 bytes.
enum class TreeShape {
  mixed,       ///< directories at all levels
  deep_chain,  ///< one directory in the other, paths beyond PATH_MAX
  wide,        ///< nearly everything in one directory
  hard_links,  ///< most names are links, inside a directory, across siblings and across levels
};

inline constexpr TreeShape all_tree_shapes[] = {TreeShape::mixed, TreeShape::deep_chain,
                                                TreeShape::wide, TreeShape::hard_links};

/// The shape's name, for test output.
const char* name_of(TreeShape shape);

/// Fills the existing, empty `directory` with about `entry_count` names. The same shape, seed and
/// count give the same tree. Returns when the filesystem is synced, so that st_blocks stands
/// still. Throws std::system_error.
void make_fake_tree(const std::string& directory, TreeShape shape, uint64_t seed,
                    int entry_count = 400);

/// The seed for randomised tests: TALLYFS_SEED when set, else `fallback`. Print it (INFO).
uint64_t seed_or(uint64_t fallback);

}  // namespace tally::test
