#include "fs/credentials.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <atomic>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>

#include "core/hot_path_guard.hpp"
#include "core/unique_fd.hpp"
#include "tests/fs/inode_fixture.hpp"
#include "tests/skip.hpp"
#include "tests/temp_folder.hpp"

using tally::UniqueFd;
using tally::fs::Caller;
using tally::fs::Credentials;
using tally::test::TempFolder;

namespace {

bool needs_root() {
  if (::geteuid() == 0) return false;
  tally::test::skip("needs root, to act as other users");
  return true;
}

/// What becomes of a thread's identity must not outlive the test.
template <class Work>
void on_another_thread(Work work) {
  std::thread(work).join();
}

pid_t thread_id() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

void set_thread_groups(const std::vector<gid_t>& groups) {
  ::syscall(SYS_setgroups, groups.size(), groups.data());
}

/// As of a thread whose user is not root.
void drop_thread_capabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  ::syscall(SYS_capset, &header, none);
}

struct stat status_of(const std::string& path) {
  struct stat status{};
  ::lstat(path.c_str(), &status);
  return status;
}

UniqueFd create(const std::string& path, mode_t mode) {
  return UniqueFd(::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode));
}

/// The mode of a file with setuid and setgid bits after it was written to in the caller's name.
mode_t mode_after_write(const Credentials& credentials, const std::string& path,
                        const Caller& caller) {
  const UniqueFd fd = create(path, 0600);
  ::fchmod(fd.get(), 06755);
  mode_t mode = 0;
  on_another_thread([&] {
    const bool written = credentials.become(caller) && ::write(fd.get(), "x", 1) == 1;
    mode = written ? status_of(path).st_mode & 07777 : 0;
  });
  return mode;
}

/// A thread with supplementary groups of its own, as the kernel knows a caller.
class CallerThread {
 public:
  explicit CallerThread(std::vector<gid_t> groups, bool holds_capabilities = false)
      : thread_([this, groups = std::move(groups), holds_capabilities] {
          set_thread_groups(groups);
          if (!holds_capabilities) drop_thread_capabilities();
          id_ = thread_id();
          id_.notify_one();
          ended_.wait(false);
        }) {
    id_.wait(0);
  }
  ~CallerThread() {
    ended_ = true;
    ended_.notify_one();
    thread_.join();
  }
  CallerThread(const CallerThread&) = delete;
  CallerThread& operator=(const CallerThread&) = delete;

  [[nodiscard]] pid_t id() const { return id_; }

 private:
  std::atomic<pid_t> id_ = 0;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

}  // namespace

TEST_CASE("files made by several threads at once belong to the right users from the start") {
  if (needs_root()) return;
  const TempFolder folder("credentials");
  ::chmod(folder.path().c_str(), 0700);  // permissions were checked before
  const Credentials credentials;
  REQUIRE(credentials.can_switch());

  constexpr unsigned thread_count = 4;
  constexpr unsigned files = 200;
  std::array<int, thread_count> mistakes{};
  std::vector<std::thread> threads;
  for (unsigned number = 0; number < thread_count; ++number)
    threads.emplace_back([&, number] {
      for (unsigned i = 0; i < files; ++i) {
        // Every thread serves several callers in turn, root among them.
        const Caller caller{.uid = (number + i) % 3 * 1000, .gid = 2000 + number, .pid = 1};
        const std::string path =
            folder.path() + "/" + std::to_string(number) + "-" + std::to_string(i);
        TALLY_HOT_PATH("become a creator");
        const bool became = credentials.become_creator(caller).has_value();
        const UniqueFd fd = create(path, 0600);
        struct stat status{};
        if (!became || ::fstat(fd.get(), &status) != 0 || status.st_uid != caller.uid ||
            status.st_gid != caller.gid)
          ++mistakes[number];
      }
    });
  for (std::thread& thread : threads)
    thread.join();
  REQUIRE(mistakes == std::array<int, thread_count>{});
  REQUIRE(create(folder.path() + "/main", 0600));
  REQUIRE(status_of(folder.path() + "/main").st_uid == 0);
}

TEST_CASE("writing clears setuid and setgid bits, except for root") {
  if (needs_root()) return;
  const TempFolder folder("credentials");
  const Credentials credentials;
  REQUIRE(mode_after_write(credentials, folder.path() + "/user", {1000, 1000, 1}) == 0755);
  REQUIRE(mode_after_write(credentials, folder.path() + "/root", {0, 0, 1}) == 06755);
}

TEST_CASE("a thread that served a user has all capabilities again for root and for the daemon") {
  if (needs_root()) return;
  const TempFolder folder("credentials");
  const Credentials credentials;
  const std::string path = folder.path() + "/file";
  const UniqueFd fd = create(path, 0600);
  std::vector<mode_t> modes;
  on_another_thread([&] {
    const auto write_with_bits_set = [&](const tally::Status& became) {
      ::fchmod(fd.get(), 06755);
      const bool written = became && ::write(fd.get(), "x", 1) == 1;
      modes.push_back(written ? status_of(path).st_mode & 07777 : 0);
    };
    write_with_bits_set(credentials.become_daemon());
    write_with_bits_set(credentials.become({1000, 1000, 1}));
    write_with_bits_set(credentials.become({1000, 1000, 1}));
    write_with_bits_set(credentials.become_daemon());
    write_with_bits_set(credentials.become({1001, 1000, 1}));
    write_with_bits_set(credentials.become({0, 1000, 1}));
  });
  REQUIRE(modes == std::vector<mode_t>{06755, 0755, 0755, 06755, 0755, 06755});
}

TEST_CASE("a user's thread may still do what the kernel has checked already") {
  if (needs_root()) return;
  const TempFolder folder("credentials");
  const std::string path = folder.path() + "/file";
  REQUIRE(create(path, 0000));
  ::chmod(folder.path().c_str(), 0000);
  const Credentials credentials;
  std::vector<int> errors;
  on_another_thread([&] {
    const auto record = [&](bool succeeded) { errors.push_back(succeeded ? 0 : errno); };
    record(credentials.become({1000, 1000, 1}).has_value());
    record(UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC)).get() >= 0);
    record(::chmod(path.c_str(), 0640) == 0);
    record(::chown(path.c_str(), 1234, 1234) == 0);
    record(::mknod((path + "-device").c_str(), S_IFCHR | 0600, 0) == 0);
    record(tally::test::may_open_by_handle());
  });
  REQUIRE(errors == std::vector<int>(6, 0));
  REQUIRE(status_of(path).st_uid == 1234);
}

TEST_CASE("what is created knows the caller's supplementary groups") {
  if (needs_root()) return;
  const TempFolder folder("credentials");
  REQUIRE(::chown(folder.path().c_str(), 0, 3003) == 0);
  REQUIRE(::chmod(folder.path().c_str(), 02777) == 0);
  const Credentials credentials;
  // More groups than fit into one read of /proc, the one that matters last.
  std::vector<gid_t> many;
  for (gid_t group = 100'000'000; many.size() < 800; ++group)
    many.push_back(group);
  std::vector<gid_t> member = many;
  member.push_back(3003);
  const CallerThread insider(member);
  const CallerThread outsider(many);

  std::vector<mode_t> modes;
  on_another_thread([&] {
    int number = 0;
    for (const pid_t pid : {insider.id(), outsider.id(), insider.id(), pid_t{0x7fffffff}}) {
      const bool became = credentials.become_creator({1000, 1000, pid}).has_value();
      const std::string path = folder.path() + "/" + std::to_string(number++);
      const UniqueFd fd = create(path, 02750);
      modes.push_back(became ? status_of(path).st_mode & 07777 : 0);
    }
  });
  // A setgid bit that somebody outside of the group asks for is dropped (inode_init_owner).
  REQUIRE(modes == std::vector<mode_t>{02750, 0750, 02750, 0750});
}

TEST_CASE("set-id bits survive a write by whoever holds CAP_FSETID or is root, and by no other") {
  if (needs_root()) return;
  const TempFolder folder("credentials");
  const Credentials credentials;
  const CallerThread privileged({}, true);
  const CallerThread plain({});
  const CallerThread member({3003});
  struct Writer {
    Caller caller;
    mode_t kept_of_06755;
    mode_t kept_of_02666;  // setgid without group execution: of the group's members, too
  };
  for (const auto& [caller, kept_of_06755, kept_of_02666] :
       {Writer{{0, 0, privileged.id()}, 06755, 02666}, Writer{{0, 0, plain.id()}, 0755, 0666},
        Writer{{1000, 1000, privileged.id()}, 06755, 02666},
        Writer{{1000, 1000, plain.id()}, 0755, 0666},
        Writer{{1000, 1000, member.id()}, 0755, 02666}}) {
    for (const auto& [mode, kept] : {std::pair(06755U, kept_of_06755), {02666U, kept_of_02666}}) {
      const std::string path = folder.path() + "/file";
      UniqueFd fd = create(path, 0600);
      REQUIRE(::fchown(fd.get(), 0, 3003) == 0);
      REQUIRE(::fchmod(fd.get(), mode) == 0);
      bool written = false;
      on_another_thread(
          [&] { written = credentials.become_exactly(caller) && ::write(fd.get(), "x", 1) == 1; });
      INFO("user " << caller.uid << ", mode " << mode);
      CHECK(written);
      CHECK((status_of(path).st_mode & 07777) == kept);
      REQUIRE(::unlink(path.c_str()) == 0);
    }
  }
}

TEST_CASE("nothing is created for a caller whose groups can't be read for lack of descriptors") {
  if (needs_root()) return;
  const Credentials credentials;
  const CallerThread caller({3003});
  tally::Status became;
  on_another_thread([&] {
    rlimit before;
    ::getrlimit(RLIMIT_NOFILE, &before);
    rlimit none = before;
    none.rlim_cur = 0;  // open descriptors stay, new ones are EMFILE
    ::setrlimit(RLIMIT_NOFILE, &none);
    became = credentials.become_creator({1000, 1000, caller.id()});
    ::setrlimit(RLIMIT_NOFILE, &before);
  });
  REQUIRE_FALSE(became);
  REQUIRE(became.error().value == EMFILE);
}

TEST_CASE("the groups of one user are not left to the next") {
  if (needs_root()) return;
  const TempFolder folder("credentials");
  REQUIRE(::chown(folder.path().c_str(), 0, 3003) == 0);
  REQUIRE(::chmod(folder.path().c_str(), 02777) == 0);
  const Credentials credentials;
  const CallerThread insider({3003});
  mode_t mode = 0;
  on_another_thread([&] {
    const bool became = credentials.become_creator({1000, 1000, insider.id()}) &&
                        credentials.become({1001, 1000, 1});
    const UniqueFd fd = create(folder.path() + "/file", 02750);
    mode = became ? status_of(folder.path() + "/file").st_mode & 07777 : 0;
  });
  REQUIRE(mode == 0750);
}

TEST_CASE("without the privilege to switch, everything is done as the daemon") {
  const TempFolder folder("credentials");
  bool could_switch = true;
  bool succeeded = false;
  const auto work = [&] {
    const Credentials credentials;
    could_switch = credentials.can_switch();
    succeeded = credentials.become({4321, 4321, 1}) &&
                credentials.become_creator({4321, 4321, 1}) && credentials.become_daemon() &&
                credentials.become({4321, 4321, 1}) && create(folder.path() + "/file", 0600);
  };
  tally::test::run_without_capability(CAP_SETUID, work);
  REQUIRE_FALSE(could_switch);
  REQUIRE(succeeded);
  REQUIRE(status_of(folder.path() + "/file").st_uid == ::geteuid());
}
