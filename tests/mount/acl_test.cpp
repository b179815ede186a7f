#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "tests/mount/mount.hpp"

using namespace tally::test;

namespace {

/// Who may read what, and what new files get: prints one line per answer.
constexpr const char* script = R"(
cd "$1" && chmod 777 . || exit 1
as() { setpriv --reuid "$1" --regid "$2" --clear-groups "${@:3}" 2>&1; }
may() { as "$1" "$2" cat "$3" >/dev/null && echo "$1:$2 reads $3" || echo "$1:$2 may not read $3"; }
umask 027; touch a; mkdir b; mkfifo c; umask 077; touch d; umask 0; touch e
(umask 022; as 65534 65534 touch f)
stat -c '%n %a %u:%g' a b c d e f
umask 022; echo secret >s; chgrp 4000 s; chmod 600 s
may 4001 4000 s
if setfacl -m u:4002:rw s 2>/dev/null; then
  stat -c '%n %a' s
  may 4001 4000 s; may 4002 4002 s; may 4003 4003 s
  setfacl -b s; may 4002 4002 s
  mkdir n; setfacl -d -m u:4002:rwx,g::r-x,o::r n
  umask 077; touch n/file; mkdir n/directory
  getfacl -cn n n/file n/directory
  stat -c '%n %a' n/file n/directory
  touch g h; chown 4001:4000 g h; chmod 2755 g h
  as 4001 4001 setfacl -m u:4002:r g; as 4001 4000 setfacl -m u:4002:r h; stat -c '%n %a' g h
fi
chmod 640 s; may 4001 4000 s; may 4003 4003 s
)";

std::string answers_in(const std::string& directory) {
  const Finished finished = run({"bash", "-c", script, "bash", directory});
  INFO(finished.output);
  CHECK(finished.status == 0);
  return finished.output;
}

}  // namespace

TEST_CASE("umasks and ACLs, default ones too, have the same effects as natively") {
  if (!can_mount() || !has_programs({"setfacl", "setpriv"})) return;
  const MountFolders folders;
  Mount mount(folders);
  const std::string native = answers_in(folders.native());
  const std::string mounted = answers_in(mount.at());
  CHECK(mounted == native);
  CHECK(native.find("4001:4000 may not read s") != std::string::npos);
  CHECK(native.find("4001:4000 reads s") != std::string::npos);
}
