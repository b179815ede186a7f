#include "tests/mount/sparse_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "core/unique_fd.hpp"

namespace tally::test {

void write_every_second_block(const std::string& path, int blocks) {
  const std::string block(4096, 's');
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  bool written = static_cast<bool>(fd);
  for (off_t i = 0; written && i < blocks; ++i)
    written = ::pwrite(fd.get(), block.data(), block.size(), i * 8192) == 4096;
  if (!written) throw std::system_error(errno, std::generic_category(), path);
}

}  // namespace tally::test
