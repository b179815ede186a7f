// Mounts that are served over io_uring.

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include <catch2/catch.hpp>

#include "tests/fake_tree.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/mount/parity.hpp"
#include "tests/mount/random_changes.hpp"
#include "tests/mount/uring_enabled.hpp"

using namespace tally::test;
using tally::UniqueFd;
using namespace std::chrono_literals;

namespace {

Mount::Settings over_uring() { return {.options = "uring=on"}; }

int ring_threads_of(pid_t process) {
  int count = 0;
  const std::string tasks = "/proc/" + std::to_string(process) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    count += name.starts_with("fuse-ring-") ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST_CASE("over io_uring files are made, read, listed and removed, and every counter is exact") {
  if (!can_mount()) return;
  const UringEnabled enabled;
  if (!can_use(enabled)) return;
  const MountFolders folders;
  make_fake_tree(folders.source(), TreeShape::hard_links, 5, 200);
  Mount mount(folders, over_uring());
  CHECK(ring_threads_of(mount.daemon().pid()) >= 1);

  const std::string large(3 << 20, 'x');
  write_file(mount.at("large"), large);
  CHECK(read_file(mount.at("large")) == large);
  CHECK(read_file(folders.source("large")) == large);
  check_counters(mount);

  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 4; ++seed)
    threads.emplace_back([&, seed] {
      RandomChanges changes(mount.at(), seed);
      for (int step = 0; step < 1000; ++step)
        changes.step();
    });
  for (std::thread& thread : threads)
    thread.join();
  CHECK(differences(describe_tree(folders.source()), describe_tree(mount.at())).empty());
  CHECK(wrong_counters(mount, Compare::exact_parts) == std::vector<std::string>{});
}

TEST_CASE("over io_uring SIGTERM under load ends the daemon cleanly") {
  if (!can_mount()) return;
  const UringEnabled enabled;
  if (!can_use(enabled)) return;
  for (int round = 0; round < 20; ++round) {
    INFO("round " << round);
    const MountFolders folders;
    Mount mount(folders, over_uring());
    std::atomic<bool> stop = false;
    std::vector<std::thread> load;
    for (int i = 0; i < 8; ++i)
      load.emplace_back([&, i] {
        const std::string path = mount.at("file" + std::to_string(i));
        // What is closed by a destructor, in which a thread must not be cancelled.
        while (!stop)
          const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
      });
    std::this_thread::sleep_for(50ms);
    mount.daemon().signal(SIGTERM);
    mount.expect_clean_end();
    stop = true;
    for (std::thread& thread : load)
      thread.join();
  }
}

TEST_CASE("over io_uring a daemon that can't go on ends its rings first, and its mount") {
  if (!can_mount() || !has_programs({"strace"})) return;
  const UringEnabled enabled;
  if (!can_use(enabled)) return;
  const MountFolders folders;
  // The first thread after those of io_uring can't be made.
  const std::string failing = std::to_string(::get_nprocs_conf() + 1);
  const auto command =
      injected_command("clone3", "clone3:error=EAGAIN:when=" + failing,
                       {"-f", "-ouring=on,scan_threads=1", folders.source(), folders.mountpoint()});
  const Finished finished = run(command);
  INFO(finished.output);
  CHECK(finished.status == 1);
  const std::string killed_with_the_process = "exited with 1";
  CHECK(finished.output.find(killed_with_the_process) ==
        finished.output.rfind(killed_with_the_process));
  CHECK(::umount2(folders.mountpoint().c_str(), MNT_DETACH) == -1);
}
