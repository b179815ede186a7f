#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include <catch2/catch.hpp>

#include "tests/mount/counter_check.hpp"
#include "tests/mount/mount.hpp"
#include "tests/skip.hpp"

using namespace tally::test;

namespace {

/// Where Debian keeps the newest server's programs; empty if there is none.
std::string postgresql_programs() {
  std::string newest;
  std::error_code none;
  for (const auto& version : std::filesystem::directory_iterator("/usr/lib/postgresql", none)) {
    const std::string programs = version.path().string() + "/bin";
    if (std::filesystem::exists(programs + "/pgbench")) newest = std::max(newest, programs);
  }
  if (newest.empty()) skip("PostgreSQL's server (postgresql) is not installed");
  return newest;
}

/// Makes a cluster, works in it, kills the server at work, and has it recover. Prints what the
/// tables say in the end.
constexpr const char* script = R"sh(
bin=$1
as_user="setpriv --pdeathsig KILL --reuid=postgres --regid=postgres --init-groups"
run() { $as_user "$@" >>"$PWD/log" 2>&1 || { cat "$PWD/log"; exit 1; }; }
install -d -m 700 -o postgres -g postgres cluster
install -m 666 /dev/null log
server=
export PGHOST="$PWD/cluster" PGDATABASE=postgres LC_ALL=C
# Not at once after a crash: the server waits for its children of before, by refusing to start.
start() {
  for try in $(seq 300); do
    if [ -z "$server" ] || ! kill -0 "$server" 2>/dev/null; then
      $as_user "$bin/postgres" -D cluster -c listen_addresses= -c max_connections=20 \
        -c unix_socket_directories="$PGHOST" -c shared_buffers=16MB >>log 2>&1 & server=$!
    fi
    sleep 0.1
    $as_user "$bin/pg_isready" -q && return
  done
  cat log; exit 1
}
sums() {
  $as_user "$bin/psql" -Atc "SELECT count(*), (SELECT sum(delta) FROM pgbench_history) =
    (SELECT sum(bbalance) FROM pgbench_branches), sum(abalance) =
    (SELECT sum(tbalance) FROM pgbench_tellers) FROM pgbench_accounts"
}
trap '[ -z "$server" ] || kill -9 "$server" 2>/dev/null || :' EXIT
run "$bin/initdb" -D cluster -A trust
start
run "$bin/pgbench" -i -q -s 2
run "$bin/pgbench" -n -c 4 -j 2 -t 100
sums
$as_user "$bin/pgbench" -n -c 4 -j 2 -T 30 >>log 2>&1 & bench=$!
sleep 2
kill -9 "$server"
{ wait "$server" "$bench" || :; } 2>/dev/null
start
sums
grep -q 'automatic recovery in progress' log
run "$bin/psql" -c 'VACUUM FULL' -c 'CREATE DATABASE another' -c 'DROP DATABASE another' -c CHECKPOINT
sums
kill -INT "$server"
wait "$server"
server=
)sh";

}  // namespace

TEST_CASE("PostgreSQL works and crashes and recovers and the counters are exact") {
  if (!can_mount() || !has_programs({"setpriv", "install"})) return;
  const std::string programs = postgresql_programs();
  if (programs.empty()) return;
  const MountFolders folders;
  const Mount mount(folders, {.life_max = std::chrono::seconds(600)});
  const Finished finished =
      run({"sh", "-euc", script, "sh", programs}, mount.at(), std::chrono::seconds(300));
  INFO(finished.output);
  REQUIRE(finished.status == 0);
  CHECK(finished.output == "200000|t|t\n200000|t|t\n200000|t|t\n");
  check_counters(mount);
}
