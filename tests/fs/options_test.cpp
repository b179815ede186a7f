#include "fs/options.hpp"

#include <catch2/catch.hpp>

using tally::fs::CommandLine;

namespace {

CommandLine parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "tallyfs");
  return tally::fs::parse_command_line(static_cast<int>(arguments.size()), arguments.data());
}

CommandLine parse_list(const char* list) { return parse({"-o", list, "/source"}); }

std::string error_of(const CommandLine& line) {
  REQUIRE(line.errors.size() == 1);
  CHECK(line.errors[0].find('\n') == std::string::npos);
  CHECK_FALSE(line.runnable());
  return line.errors[0];
}

}  // namespace

TEST_CASE("without options everything has its documented default") {
  const CommandLine line = parse({"/source"});
  REQUIRE(line.runnable());
  CHECK(line.options.source == "/source");
  CHECK(line.options.mountpoint == "/source");
  CHECK(line.options.data_path == tally::fs::DataPath::direct);
  CHECK(line.options.uring == tally::fs::UringMode::automatic);
  CHECK(line.options.directory_size == tally::fs::DirectorySize::recursive);
  CHECK(line.options.watch == tally::fs::WatchMode::automatic);
  CHECK_FALSE(line.options.list_counters);
  CHECK_FALSE(line.options.directories_max.has_value());
  CHECK_FALSE(line.options.buffers.has_value());
  CHECK_FALSE(line.options.scan_threads.has_value());
  CHECK(line.options.buffer_size_bytes == 1 << 20);
  CHECK(line.options.queue_depth == 64);
  CHECK(line.options.attribute_timeout_s == 1.0);
  CHECK(line.options.settling_delay_s == 30.0);
  CHECK_FALSE(line.options.allow_other);
  CHECK(line.options.mount_flags.empty());
  CHECK_FALSE(line.options.foreground);
}

TEST_CASE("every option of ours is read, wherever -o stands and however often") {
  const CommandLine line = parse(
      {"-f", "-oio=buffered,uring=off", "/source", "/mountpoint", "-o",
       "dirsize=native,list_xattr,one_file_system,max_dirs=1000,buffers=3,buffer_size=65536", "-o",
       "scan_threads=5,queue_depth=7,attr_timeout=0.25,settle=0.5,watch=off,allow_other,ro"});
  REQUIRE(line.errors == std::vector<std::string>());
  REQUIRE(line.runnable());
  CHECK(line.options.source == "/source");
  CHECK(line.options.mountpoint == "/mountpoint");
  CHECK(line.options.data_path == tally::fs::DataPath::buffered);
  CHECK(line.options.uring == tally::fs::UringMode::off);
  CHECK(line.options.watch == tally::fs::WatchMode::off);
  CHECK(line.options.directory_size == tally::fs::DirectorySize::native);
  CHECK(line.options.list_counters);
  CHECK(line.options.one_file_system);
  CHECK(line.options.directories_max == 1000U);
  CHECK(line.options.buffers == 3U);
  CHECK(line.options.buffer_size_bytes == 65536);
  CHECK(line.options.scan_threads == 5U);
  CHECK(line.options.queue_depth == 7);
  CHECK(line.options.attribute_timeout_s == 0.25);
  CHECK(line.options.settling_delay_s == 0.5);
  CHECK(line.options.allow_other);
  CHECK(line.options.mount_flags == std::vector<std::string>{"ro"});
  CHECK(line.options.foreground);
}

TEST_CASE("debugging stays in the foreground") {
  CHECK(parse({"-d", "/source"}).options.foreground);
  CHECK(parse({"-d", "/source"}).options.debug);
  CHECK(parse_list("debug").options.foreground);
}

TEST_CASE("what fstab and mount(8) add for themselves is ignored") {
  // As mount.fuse3 calls us for a line in fstab.
  const CommandLine line =
      parse({"/source", "/mountpoint", "-o",
             "rw,defaults,auto,noauto,user,user=someone,users,nofail,_netdev,x-systemd.automount,"
             "comment=anything,dev,suid,exec,async,relatime,default_permissions,,"});
  REQUIRE(line.errors == std::vector<std::string>());
  CHECK(line.runnable());
  CHECK(line.options.mount_flags.empty());
}

TEST_CASE("restrictions go to the mount, and nothing loosens it") {
  const CommandLine line = parse_list("nosuid,suid,nodev,noexec,noatime,ro,rw");
  REQUIRE(line.runnable());
  CHECK(line.options.mount_flags ==
        std::vector<std::string>{"nosuid", "nodev", "noexec", "noatime", "ro"});
}

TEST_CASE("an unknown option is one line and status 2") {
  const CommandLine in_list = parse_list("ro,max_dir=5");
  CHECK(error_of(in_list).find("max_dir=5") != std::string::npos);
  CHECK(in_list.exit_status == 2);
  const CommandLine of_command = parse({"--frobnicate", "/source"});
  CHECK(error_of(of_command).find("--frobnicate") != std::string::npos);
  CHECK(of_command.exit_status == 2);
}

TEST_CASE("each bad value gets a line of its own") {
  const CommandLine line = parse_list(
      "io=fast,uring=maybe,dirsize=big,max_dirs=0,max_dirs=many,max_dirs=99999999999,buffers=-1,"
      "buffers=,buffer_size=5000,buffer_size=2097152,scan_threads=0,queue_depth=1.5,attr_timeout=-"
      "1,"
      "attr_timeout=nan,attr_timeout=1s,list_xattr=1,settle=soon,io,allow_other=yes");
  CHECK(line.errors.size() == 19);
  CHECK(line.exit_status == 2);
  for (const std::string& error : line.errors) {
    CHECK(error.starts_with("option "));
    CHECK(error.find('\n') == std::string::npos);
  }
}

TEST_CASE("passthrough is known and not available") {
  const CommandLine line = parse_list("io=passthrough");
  CHECK(error_of(line).find("use io=direct or io=buffered") != std::string::npos);
  CHECK(line.exit_status == 1);
  CHECK(parse_list("io=passthrough,nonsense").exit_status == 2);
}

TEST_CASE("a missing source or one argument too many is wrong usage") {
  for (const CommandLine& line : {parse({}), parse({"/a", "/b", "/c"}), parse({"/a", "-o"})}) {
    CHECK_FALSE(error_of(line).empty());
    CHECK(line.exit_status == 2);
  }
}

TEST_CASE("help lists every option, and help and version need no source") {
  const CommandLine help = parse({"-h"});
  CHECK(help.exit_status == 0);
  CHECK(help.errors.empty());
  for (const char* option :
       {"io=", "uring=", "dirsize=", "list_xattr", "one_file_system", "max_dirs=", "buffers=",
        "buffer_size=", "scan_threads=", "queue_depth=", "attr_timeout=", "settle=", "allow_other",
        "--show-limits", "-f,"})
    CHECK(help.text.find(option) != std::string::npos);
  const CommandLine version = parse({"-V"});
  CHECK(version.exit_status == 0);
  CHECK(version.text.starts_with("tallyfs "));
}
