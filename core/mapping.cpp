#include "core/mapping.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace tally {

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<Mapping> Mapping::reserve(std::size_t size_bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t rounded = (size_bytes + page - 1) / page * page;
  if (rounded == 0) return failure(EINVAL);
  void* data = ::mmap(nullptr, rounded, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return last_error();
  // Transparent huge pages would make the first touch of a sparse pool cost 2 MiB of memory.
  ::madvise(data, rounded, MADV_NOHUGEPAGE);
  return Mapping(static_cast<std::byte*>(data), rounded);
}

Mapping Mapping::reserve_or_throw(std::size_t size_bytes) {
  auto mapping = reserve(size_bytes);
  if (!mapping) {
    errno = mapping.error().value;
    throw std::bad_alloc();
  }
  return std::move(*mapping);
}

void Mapping::discard() {
  if (data_ != nullptr) ::madvise(data_, size_, MADV_DONTNEED);
}

}  // namespace tally
