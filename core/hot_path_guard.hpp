#pragma once

/// Marks the rest of the enclosing block as a hot path: a section in which an allocation is a bug.
///
/// In builds with TALLYFS_HOT_PATH_GUARD (preset `guard`) any malloc, calloc, realloc,
/// reallocarray, aligned allocation or operator new (which libstdc++ takes from malloc or
/// aligned_alloc) made by this thread inside the section writes
/// `ALLOCATION IN HOT PATH: <operation> of <size> bytes in <outer> > <inner>` to stderr and aborts.
/// Freeing is allowed. Sections nest and belong to their thread. `name` must be a string literal.
/// In all other builds the macro expands to nothing that costs anything.
///
/// TALLY_HOT_PATH_PAUSE suspends the section for the enclosing block, around calls into code that
/// allocates by itself (libfuse, logging). `reason` is documentation. A section opened during the
/// pause is checked again until it ends.
#ifdef TALLYFS_HOT_PATH_GUARD

#define TALLY_HOT_PATH(name) \
  const ::tally::HotPathSection TALLY_HOT_PATH_VARIABLE(tally_hot_path_, __LINE__)(name)
#define TALLY_HOT_PATH_PAUSE(reason) \
  const ::tally::HotPathPause TALLY_HOT_PATH_VARIABLE(tally_hot_path_pause_, __LINE__)(reason)

#define TALLY_HOT_PATH_VARIABLE(prefix, line) TALLY_HOT_PATH_CONCATENATE(prefix, line)
#define TALLY_HOT_PATH_CONCATENATE(prefix, line) prefix##line

namespace tally {

/// What TALLY_HOT_PATH declares. Construct and destroy it on one thread, in stack order.
class HotPathSection {
 public:
  explicit HotPathSection(const char* name);
  HotPathSection(const HotPathSection&) = delete;
  HotPathSection& operator=(const HotPathSection&) = delete;
  ~HotPathSection();

 private:
  bool was_armed_;
};

/// What TALLY_HOT_PATH_PAUSE declares. Construct and destroy it on one thread, in stack order.
class HotPathPause {
 public:
  explicit HotPathPause(const char* reason);
  HotPathPause(const HotPathPause&) = delete;
  HotPathPause& operator=(const HotPathPause&) = delete;
  ~HotPathPause();

 private:
  bool was_armed_;
};

}  // namespace tally

#else

#define TALLY_HOT_PATH(name) static_cast<void>(0)
#define TALLY_HOT_PATH_PAUSE(reason) static_cast<void>(0)

#endif
