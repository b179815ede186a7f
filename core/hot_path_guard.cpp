#include "core/hot_path_guard.hpp"

#ifdef TALLYFS_HOT_PATH_GUARD

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#error "TALLYFS_HOT_PATH_GUARD replaces malloc, and so do the sanitizers: use one at a time"
#endif

// The executable's own malloc family takes precedence over glibc's in every library of the process
// ("Replacing malloc" in the glibc manual); the originals stay reachable under these names. free
// stays glibc's: the memory is.
extern "C" {
void* __libc_malloc(std::size_t size) noexcept;
void* __libc_calloc(std::size_t count, std::size_t size) noexcept;
void* __libc_realloc(void* block, std::size_t size) noexcept;
void* __libc_memalign(std::size_t alignment, std::size_t size) noexcept;
void* __libc_valloc(std::size_t size) noexcept;
void* __libc_pvalloc(std::size_t size) noexcept;
}

namespace tally {
namespace {

/// Names kept per thread; deeper sections still guard, but are not named.
constexpr std::size_t named_sections_max = 16;

struct ThreadSections {
  std::array<const char*, named_sections_max> names;
  std::size_t depth;
  bool armed;
};

// Constant-initialised and initial-exec: touching it in malloc must not itself allocate.
[[gnu::tls_model("initial-exec")]] constinit thread_local ThreadSections sections{};

/// A message on the stack, cut off when full.
class Message {
 public:
  Message& operator<<(std::string_view text) {
    const std::size_t length = std::min(text.size(), text_.size() - size_);
    std::memcpy(text_.data() + size_, text.data(), length);
    size_ += length;
    return *this;
  }

  Message& operator<<(std::size_t number) {
    std::array<char, 20> digits;  // 2^64 has 20
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
    return *this << std::string_view(digits.data(), end);
  }

  void write_to_stderr() const {
    // What a failed write would tell has no other channel; the abort that follows says enough.
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text_.data(), size_);
  }

 private:
  std::array<char, 1024> text_;
  std::size_t size_ = 0;
};

[[noreturn, gnu::cold]] void report(const char* operation, std::size_t size) {
  // The program's SIGABRT handler, if any, may allocate.
  sections.armed = false;
  Message message;
  message << "ALLOCATION IN HOT PATH: " << operation << " of " << size << " bytes in ";
  for (std::size_t i = 0; i < std::min(sections.depth, named_sections_max); ++i)
    message << (i == 0 ? "" : " > ") << sections.names[i];
  if (sections.depth > named_sections_max) message << " > ...";
  message << "\n";
  message.write_to_stderr();
  std::abort();
}

inline void check(const char* operation, std::size_t size) {
  if (sections.armed) [[unlikely]]
    report(operation, size);
}

/// `count * size`, or SIZE_MAX, which no allocator grants, where that overflows.
inline std::size_t saturating_product(std::size_t count, std::size_t size) {
  std::size_t product;
  return __builtin_mul_overflow(count, size, &product) ? SIZE_MAX : product;
}

}  // namespace

HotPathSection::HotPathSection(const char* name) : was_armed_(sections.armed) {
  if (sections.depth < named_sections_max) sections.names[sections.depth] = name;
  ++sections.depth;
  sections.armed = true;
}

HotPathSection::~HotPathSection() {
  --sections.depth;
  sections.armed = was_armed_;
}

HotPathPause::HotPathPause(const char* /*reason*/) : was_armed_(sections.armed) {
  sections.armed = false;
}

HotPathPause::~HotPathPause() { sections.armed = was_armed_; }

}  // namespace tally

extern "C" {

void* malloc(std::size_t size) noexcept {
  tally::check("malloc", size);
  return __libc_malloc(size);
}

void* calloc(std::size_t count, std::size_t size) noexcept {
  tally::check("calloc", tally::saturating_product(count, size));
  return __libc_calloc(count, size);
}

void* realloc(void* block, std::size_t size) noexcept {
  tally::check("realloc", size);
  return __libc_realloc(block, size);
}

void* reallocarray(void* block, std::size_t count, std::size_t size) noexcept {
  const std::size_t total = tally::saturating_product(count, size);
  tally::check("reallocarray", total);
  return __libc_realloc(block, total);
}

int posix_memalign(void** block, std::size_t alignment, std::size_t size) noexcept {
  tally::check("posix_memalign", size);
  if (alignment % sizeof(void*) != 0 || !std::has_single_bit(alignment)) return EINVAL;
  const int saved_errno = errno;
  void* allocated = __libc_memalign(alignment, size);
  errno = saved_errno;
  if (allocated == nullptr) return ENOMEM;
  *block = allocated;
  return 0;
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  tally::check("aligned_alloc", size);
  return __libc_memalign(alignment, size);
}

void* memalign(std::size_t alignment, std::size_t size) noexcept {
  tally::check("memalign", size);
  return __libc_memalign(alignment, size);
}

void* valloc(std::size_t size) noexcept {
  tally::check("valloc", size);
  return __libc_valloc(size);
}

void* pvalloc(std::size_t size) noexcept {
  tally::check("pvalloc", size);
  return __libc_pvalloc(size);
}

}  // extern "C"

#endif
