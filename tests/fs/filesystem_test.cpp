#include "fs/filesystem.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <array>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include "core/scanner.hpp"
#include "core/unique_fd.hpp"
#include "tests/temp_folder.hpp"

using tally::Errno;
using tally::Scanner;
using tally::UniqueFd;
using tally::fs::Filesystem;
using tally::fs::FilesystemOptions;
using tally::test::TempFolder;

namespace {

/// Requests without a kernel: a Filesystem over a temporary folder of empty files, scanned and
/// started.
class FilesystemFixture {
 public:
  FilesystemFixture(int files, const FilesystemOptions& options) {
    for (int i = 0; i < files; ++i)
      REQUIRE(::mknod((folder_.path() + "/" + std::to_string(i)).c_str(), S_IFREG | 0644, 0) == 0);
    source_ = UniqueFd(::open(folder_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    filesystem_ = std::make_unique<Filesystem>(source_.get(), options);
    Scanner scanner(filesystem_->accounts().tree(), filesystem_->accounts().links(),
                    {.threads = 1});
    REQUIRE(scanner.run(source_.get()).has_value());
    filesystem_->start();
  }

  Filesystem* operator->() { return filesystem_.get(); }

  auto lookup(int file) { return filesystem_->lookup(FUSE_ROOT_ID, std::to_string(file).c_str()); }

 private:
  TempFolder folder_{"filesystem"};
  UniqueFd source_;
  std::unique_ptr<Filesystem> filesystem_;
};

/// What is logged while it lives.
class KeptLog {
 public:
  KeptLog() : former_(spdlog::default_logger()) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "kept", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)));
  }
  ~KeptLog() { spdlog::set_default_logger(former_); }
  KeptLog(const KeptLog&) = delete;
  KeptLog& operator=(const KeptLog&) = delete;

  [[nodiscard]] std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> former_;
};

}  // namespace

TEST_CASE("a walk beyond the room for inodes is refused and says why, until some are forgotten") {
  const KeptLog log;
  FilesystemFixture filesystem(40, {.inodes_max = 16});
  std::vector<tally::fs::NodeId> known;
  for (int file = 0; file < 40; ++file) {
    const auto found = filesystem.lookup(file);
    if (found) {
      known.push_back(found->ino);
    } else {
      CHECK(found.error() == Errno{ENFILE});
    }
  }
  CHECK(known.size() == 15);
  CHECK(log.text().find("echo 2 > /proc/sys/vm/drop_caches") != std::string::npos);
  CHECK(log.text().find("no more files") == log.text().rfind("no more files"));
  INFO("what is known still works");
  for (const auto node : known)
    CHECK(filesystem->getattr(node, nullptr).has_value());
  CHECK(filesystem.lookup(0)->ino == known[0]);

  filesystem->forget(known[0], 2);
  CHECK(filesystem.lookup(39).has_value());
}

TEST_CASE("the look-ups in a listing that was not delivered are taken back") {
  FilesystemFixture filesystem(40, {});
  tally::fs::OpenDirectory* const root = filesystem->opendir(FUSE_ROOT_ID).value();
  alignas(8) std::array<char, 4096> reply;
  const auto filled = filesystem->readdirplus(*root, 0, reply);
  REQUIRE(filled.has_value());
  const auto known = filesystem->inodes().size();
  CHECK(known > 15);
  filesystem->forget_listed(std::span(reply).first(*filled));
  CHECK(filesystem->inodes().size() == 1);
  filesystem->releasedir(root);
}
