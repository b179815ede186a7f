#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include <catch2/catch.hpp>

#include "tests/mount/child_process.hpp"
#include "tests/mount/counter_check.hpp"
#include "tests/mount/parity.hpp"
#include "tests/skip.hpp"

using namespace tally::test;
using tally::UniqueFd;

namespace {

constexpr uid_t user = 65534;
constexpr gid_t group = 65534;
constexpr gid_t own_supplementary_group = 4242;
constexpr gid_t foreign_group = 4343;

/// A scenario run by a user without privileges, in surroundings that root has prepared.
Parity as_user(Scenario prepare, Scenario scenario) {
  Parity parity;
  parity.prepare = std::move(prepare);
  parity.scenario = std::move(scenario);
  parity.user = user;
  parity.group = group;
  parity.supplementary_groups = {own_supplementary_group};
  return parity;
}

void make_directory(const char* path, mode_t mode, uid_t owner, gid_t owning_group) {
  ::mkdir(path, 0700);
  ::chown(path, owner, owning_group);
  ::chmod(path, mode);
}

void make_file(const char* path, mode_t mode, uid_t owner, gid_t owning_group) {
  write_file(path, "content");
  ::chown(path, owner, owning_group);
  ::chmod(path, mode);
}

/// Directories and files of every owner that matters here.
void prepare_owners(Recorder&) {
  ::chmod(".", 0755);
  make_directory("root's", 0755, 0, 0);
  make_directory("closed", 0700, 0, 0);
  make_directory("group's", 0770, 0, own_supplementary_group);
  make_directory("setgid", 02775, 0, own_supplementary_group);
  make_directory("foreign", 0770, 0, foreign_group);
  make_directory("foreign setgid", 02777, 0, foreign_group);
  make_directory("own", 0755, user, group);
  make_directory("sticky", 01777, 0, 0);
  make_directory("search only", 0711, 0, 0);
  for (const char* directory : {"root's", "closed", "group's", "setgid", "foreign",
                                "foreign setgid", "own", "sticky", "search only"}) {
    const std::string below = directory;
    make_file((below + "/root's").c_str(), 0644, 0, 0);
    make_file((below + "/secret").c_str(), 0600, 0, 0);
    make_file((below + "/group's").c_str(), 0660, 0, own_supplementary_group);
    make_file((below + "/own").c_str(), 0600, user, group);
  }
}

constexpr const char* directories[] = {"root's", "closed",  "group's",
                                       "setgid", "foreign", "foreign setgid",
                                       "own",    "sticky",  "search only"};
constexpr const char* files[] = {"root's", "secret", "group's", "own"};

}  // namespace

TEST_CASE("an unprivileged user opens, lists and asks what it may natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  const Scenario scenario = [](Recorder& recorder) {
    for (const char* directory : directories) {
      recorder.fd(directory, ::open(directory, O_RDONLY | O_DIRECTORY));
      recorder.call("access", ::access(directory, R_OK | W_OK | X_OK));
      const bool inside = recorder.call("chdir", ::chdir(directory)) == 0;
      for (const char* file : files) {
        const std::string path = std::string(directory) + "/" + file;
        for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC, O_WRONLY | O_CREAT}) {
          recorder.fd("open " + path, ::open(file, flags, 0644));
        }
        recorder.call("access", ::access(file, R_OK));
        recorder.call("access", ::access(file, W_OK));
        recorder.stat(file);
        recorder.call("truncate", ::truncate(file, 3));
      }
      if (inside) recorder.call("chdir back", ::chdir(".."));
    }
  };
  check_parity(folders, mount, as_user(prepare_owners, scenario));
}

TEST_CASE("objects that an unprivileged user makes belong to it, in setgid directories too") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  const Scenario scenario = [](Recorder& recorder) {
    for (const mode_t mask : {0U, 022U, 077U}) {
      ::umask(mask);
      for (const char* directory : directories) {
        const std::string below = std::string(directory) + "/" + std::to_string(mask);
        recorder.fd("create", ::open((below + "f").c_str(), O_CREAT | O_EXCL | O_RDWR, 06777));
        recorder.stat(below + "f");
        recorder.call("mkdir", ::mkdir((below + "d").c_str(), 0777));
        recorder.stat(below + "d");
        recorder.call("symlink", ::symlink("target", (below + "s").c_str()));
        recorder.stat(below + "s");
        recorder.call("mkfifo", ::mkfifo((below + "p").c_str(), 0666));
        recorder.stat(below + "p");
        recorder.call("mknod device",
                      ::mknod((below + "c").c_str(), S_IFCHR | 0666, makedev(1, 3)));
        const UniqueFd nameless =
            recorder.fd("O_TMPFILE", ::open(directory, O_TMPFILE | O_RDWR, 0666));
        recorder.stat("nameless", nameless.get());
      }
    }
  };
  check_parity(folders, mount, as_user(prepare_owners, scenario));
}

TEST_CASE("an unprivileged user changes owners, modes and times as far as it may natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  const Scenario scenario = [](Recorder& recorder) {
    constexpr auto same_user = static_cast<uid_t>(-1);
    const struct timespec past[2] = {{5, 5}, {5, 5}};
    for (const char* directory : directories) {
      for (const char* file : files) {
        const std::string path = std::string(directory) + "/" + file;
        recorder.call("chmod " + path, ::chmod(path.c_str(), 06755));
        recorder.stat(path);
        recorder.call("chown to root", ::chown(path.c_str(), 0, same_user));
        recorder.call("chgrp to own", ::chown(path.c_str(), same_user, own_supplementary_group));
        recorder.stat(path);
        recorder.call("chgrp to foreign", ::chown(path.c_str(), same_user, foreign_group));
        recorder.call("utimes", ::utimensat(AT_FDCWD, path.c_str(), past, 0));
        recorder.call("touch", ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0));
        recorder.call("setxattr", ::setxattr(path.c_str(), "user.x", "1", 1, 0));
        recorder.call("trusted", ::setxattr(path.c_str(), "trusted.x", "1", 1, 0));
        char value[4];
        recorder.call("getxattr", ::getxattr(path.c_str(), "user.x", value, sizeof value));
      }
    }
  };
  check_parity(folders, mount, as_user(prepare_owners, scenario));
}

TEST_CASE("an unprivileged user removes, renames and links what it may natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  const Scenario scenario = [](Recorder& recorder) {
    for (const char* directory : directories) {
      for (const char* file : files) {
        const std::string path = std::string(directory) + "/" + file;
        recorder.call("link " + path, ::link(path.c_str(), (path + " again").c_str()));
        recorder.call("rename", ::rename(path.c_str(), (path + " renamed").c_str()));
        recorder.call("rename back", ::rename((path + " renamed").c_str(), path.c_str()));
        recorder.call("rename to own", ::rename(path.c_str(), "own/taken"));
        recorder.call("unlink", ::unlink(path.c_str()));
      }
      recorder.call("rename directory", ::rename(directory, "own/directory"));
      recorder.call("rmdir", ::rmdir(directory));
    }
  };
  check_parity(folders, mount, as_user(prepare_owners, scenario));
}

TEST_CASE("names of trusted attributes are listed to root only, as natively") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  const auto prepare = [](Recorder&) {
    ::chmod(".", 0755);
    for (const char* path : {"both", "trusted only", "neither"})
      make_file(path, 0644, user, group);
    ::setxattr("both", "trusted.secret", "1", 1, 0);
    ::setxattr("both", "user.x", "1", 1, 0);
    ::setxattr("both", "trusted.zzz", "1", 1, 0);
    ::setxattr("trusted only", "trusted.secret", "1", 1, 0);
  };
  const auto scenario = [](Recorder& recorder) {
    for (const char* path : {"both", "trusted only", "neither"}) {
      for (const std::size_t room : {0U, 7U, 8U, 100U}) {
        char names[100];
        const ssize_t length = ::listxattr(path, names, room);
        recorder.call(path + std::to_string(room), length);
        if (room != 0 && length > 0) recorder.note("names", std::string(names, names + length));
      }
      char value[4];
      recorder.call("getxattr", ::getxattr(path, "trusted.secret", value, sizeof value));
    }
  };
  check_parity(folders, mount, as_user(prepare, scenario));
  Parity as_root;
  as_root.prepare = prepare;
  as_root.scenario = scenario;
  check_parity(folders, mount, as_root);
}

TEST_CASE("in a sticky directory only the owner of a file removes it") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  Parity parity = as_user(
      [](Recorder&) {
        ::chmod(".", 0755);
        make_directory("sticky", 01777, 0, 0);
        make_file("sticky/root's", 0666, 0, 0);
        make_file("sticky/own", 0666, user, group);
      },
      [](Recorder& recorder) {
        recorder.call("unlink root's", ::unlink("sticky/root's"));
        recorder.call("overwrite root's", ::rename("sticky/own", "sticky/root's"));
        recorder.call("unlink own", ::unlink("sticky/own"));
      });
  check_parity(folders, mount, parity);
}

TEST_CASE("a write, a truncation and a chown by an unprivileged user clear set-id bits") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  const auto prepare = [](Recorder&) {
    ::chmod(".", 0755);
    for (const char* path : {"write", "truncate", "ftruncate", "open", "fallocate", "mmap"}) {
      make_file(path, 06777, 0, 0);
      make_file((std::string(path) + " no group execution").c_str(), 06767, 0, 0);
    }
  };
  const auto scenario = [](Recorder& recorder) {
    for (const char* suffix : {"", " no group execution"}) {
      const auto name = [&](const char* path) { return std::string(path) + suffix; };
      const UniqueFd written = recorder.fd("open", ::open(name("write").c_str(), O_WRONLY));
      recorder.call("write", ::write(written.get(), "x", 1));
      recorder.stat(name("write"));
      recorder.call("truncate", ::truncate(name("truncate").c_str(), 1));
      recorder.stat(name("truncate"));
      const UniqueFd shorter = recorder.fd("open", ::open(name("ftruncate").c_str(), O_WRONLY));
      recorder.call("ftruncate", ::ftruncate(shorter.get(), 1));
      recorder.stat(name("ftruncate"));
      recorder.fd("O_TRUNC", ::open(name("open").c_str(), O_WRONLY | O_TRUNC));
      recorder.stat(name("open"));
      const UniqueFd larger = recorder.fd("open", ::open(name("fallocate").c_str(), O_WRONLY));
      recorder.call("fallocate", ::fallocate(larger.get(), 0, 0, 9000));
      recorder.stat(name("fallocate"));
    }
  };
  check_parity(folders, mount, as_user(prepare, scenario));
  INFO("root keeps them");
  Parity as_root;
  as_root.prepare = prepare;
  as_root.scenario = scenario;
  check_parity(folders, mount, as_root);
}

TEST_CASE("what a user asks in vain, or loses a bit by, leaves all that others may do as it was") {
  if (!can_mount()) return;
  const MountFolders folders;
  const Mount mount(folders);
  const std::string closed = mount.at("closed");
  const std::string open_to_all = mount.at("open to all");
  make_directory(closed.c_str(), 0700, 0, 0);
  make_file((closed + "/file").c_str(), 0600, 0, 0);
  make_file(open_to_all.c_str(), 06777, 0, 0);
  const int status = run_as(user, group, [&] {
    constexpr auto same = static_cast<uid_t>(-1);
    // As often as makes every thread of the daemon serve the user.
    for (int i = 0; i < 64; ++i)
      if (::chown(open_to_all.c_str(), same, same) == 0) return 2;
    const UniqueFd fd(::open(open_to_all.c_str(), O_WRONLY | O_CLOEXEC));
    return ::write(fd.get(), "x", 1) == 1 ? 0 : 3;
  });
  CHECK(status == 0);
  for (int i = 0; i < 64; ++i) {
    const std::string missing = closed + "/missing" + std::to_string(i);
    struct stat st{};
    CHECK(::stat(missing.c_str(), &st) == -1);
    CHECK(errno == ENOENT);
    CHECK(counter(closed, "files") == 1);
    CHECK(std::filesystem::directory_iterator(closed)->path() == closed + "/file");
  }
}

TEST_CASE("counters can be read by whoever may read the directory") {
  if (!can_mount() || !has_programs({"getfattr", "setpriv"})) return;
  const MountFolders folders;
  const Mount mount(folders);
  const std::string directory = mount.at("dir");
  REQUIRE(::mkdir(directory.c_str(), 0755) == 0);
  REQUIRE(::mkdir(mount.at("search only").c_str(), 0711) == 0);
  REQUIRE(::mkdir(mount.at("closed").c_str(), 0700) == 0);
  REQUIRE(::mkdir(mount.at("closed/inside").c_str(), 0755) == 0);
  const auto status_of_getfattr = [&](const std::string& path) {
    const std::string command = "getfattr --absolute-names -n ceph.dir.rbytes '" + path + "'";
    return run({"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", command})
        .status;
  };
  CHECK(status_of_getfattr(directory) == 0);
  // xattr(7): reading an attribute takes the permission to read the file.
  CHECK(status_of_getfattr(mount.at("search only")) != 0);
  CHECK(status_of_getfattr(mount.at("closed/inside")) != 0);
}

TEST_CASE("an unprivileged user mounts a directory of its own through fusermount3") {
  if (!can_mount() || !has_programs({"unshare", "mount", "setpriv", "fusermount3", "getfattr"}))
    return;
  const MountFolders folders;
  // The device is made open to all where nobody else sees it.
  const std::string prepare = R"sh(
    mknod "$0/fuse" c 10 229; chmod 666 "$0/fuse"; mount --bind "$0/fuse" /dev/fuse
    install -m 755 "$1" "$0/tallyfs"; chown 65534:65534 "$0/source" "$0/mountpoint"
    exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -euc "$2" "$0")sh";
  const std::string use = R"sh(
    s=$0/source m=$0/mountpoint
    counter() { getfattr --absolute-names --only-values -n "user.tally.$1" "$m"; }
    mkdir "$s/before"; echo before >"$s/before/file"
    "$0/tallyfs" "$s" "$m"
    trap 'fusermount3 -u -z "$m"' EXIT
    until [ "$(counter state)" = exact ]; do sleep 0.01; done
    [ "$(counter rbytes)" = 7 ]
    mkdir "$m/made"; head -c 30000 /dev/zero >"$m/made/file"; ln "$m/made/file" "$m/link"
    mv "$m/made" "$m/before/moved"; chmod 600 "$m/link"; echo more >>"$m/before/file"
    : >"$m/gone"; rm "$m/gone"
    if chown 0 "$m/link" 2>/dev/null; then exit 9; fi
    cmp "$s/link" "$m/before/moved/file"
    [ "$(counter rbytes) $(counter rfiles) $(counter rsubdirs)" = "30012 2 2" ]
    [ "$(counter rdisk)" = "$(du -s -B1 "$s" | cut -f1)" ]
    [ "$(counter state)" = exact ]
    trap - EXIT
    fusermount3 -u "$m"
    [ -z "$(ls "$m")" ])sh";
  const Finished finished =
      run({"unshare", "-m", "sh", "-euc", prepare, folders.folder(), TALLYFS_BINARY, use});
  INFO(finished.output);
  CHECK(finished.status == 0);
}

TEST_CASE("in a user namespace, where nobody may set groups, root of it changes what it likes") {
  if (!can_mount() || !has_programs({"unshare", "umount"})) return;
  if (run({"unshare", "-Urm", "true"}).status != 0) return skip("user namespaces are not allowed");
  const MountFolders folders;
  // The end of the shell must be the end of the daemon too, whatever failed.
  const std::string script =
      R"("$0" "$1" "$2"; trap 'umount -l "$2"' EXIT; mkdir "$2/directory";)"
      R"( echo content >"$2/directory/file"; mv "$2/directory" "$2/moved"; chmod 600 "$2/moved/file")";
  const Finished finished = run({"unshare", "-Urm", "sh", "-ec", script, TALLYFS_BINARY,
                                 folders.source(), folders.mountpoint()});
  INFO(finished.output);
  CHECK(finished.status == 0);
  CHECK(read_file(folders.source("moved/file")) == "content\n");
}
