#include "fs/session.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include <spdlog/spdlog.h>

#include "fs/auditor.hpp"
#include "fs/change_watcher.hpp"
#include "fs/invalidator.hpp"
#include "fs/log.hpp"
#include "fs/mount_table.hpp"
#include "fs/operations.hpp"
#include "fs/settler.hpp"
#include "fs/startup_error.hpp"

namespace tally::fs {
namespace {

constexpr std::chrono::milliseconds invalidation_pause{20};
// One read-ahead window is one read request of the largest size.
constexpr int read_ahead_kib = 1024;

/// Puts a backslash before what separates options (fuse_opt.c, process_opt_sep).
std::string escaped(const std::string& value) {
  std::string result;
  for (const char c : value) {
    if (c == ',' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

/// The options that libfuse is given. It mounts with nosuid,nodev unless told otherwise, which only
/// root may do.
std::vector<std::string> libfuse_arguments(const Options& options, const Place& place, bool uring) {
  const bool is_root = ::geteuid() == 0;
  std::vector<std::string> arguments = {
      "tallyfs",
      "-ofsname=" + escaped(place.source_path),
      "-osubtype=tallyfs",
      "-odefault_permissions",
      "-omax_read=" + std::to_string(options.buffer_size_bytes),
  };
  if (is_root) arguments.insert(arguments.end(), {"-osuid", "-odev"});
  if (is_root || options.allow_other) arguments.emplace_back("-oallow_other");
  if (options.debug) arguments.emplace_back("-odebug");
  if (uring)
    arguments.emplace_back("-oio_uring,io_uring_q_depth=" +
                           std::to_string(Limits::uring_queue_depth));
  for (const auto* restrictions : {&place.restrictions, &options.mount_flags})
    for (const std::string& restriction : *restrictions)
      arguments.push_back("-o" + restriction);
  return arguments;
}

/// Answers the kernel's INIT: what it may leave to us, and what we ask of it. `conn` comes with
/// libfuse's defaults (fuse_lowlevel.c, _do_init); a flag the kernel does not offer is not set.
void negotiate(void* userdata, fuse_conn_info* conn) {
  const auto* filesystem = static_cast<const Filesystem*>(userdata);
  for (const uint64_t wanted : {
           FUSE_CAP_ASYNC_READ,
           FUSE_CAP_ASYNC_DIO,
           FUSE_CAP_PARALLEL_DIROPS,
           FUSE_CAP_ATOMIC_O_TRUNC,
           // Without it the kernel asks for security.capability before every write.
           FUSE_CAP_HANDLE_KILLPRIV_V2,
           FUSE_CAP_READDIRPLUS,
           FUSE_CAP_READDIRPLUS_AUTO,
           // We are the only writer: pages are dropped when we say so, not when a file's time
           // moves.
           FUSE_CAP_EXPLICIT_INVAL_DATA,
           // Else ACLs below would be ignored, and a file's ACL mask taken for its group's rights.
           FUSE_CAP_POSIX_ACL,
           FUSE_CAP_DONT_MASK,
           // The target of a symbolic link never changes, and node ids are never used again.
           FUSE_CAP_CACHE_SYMLINKS,
       })
    fuse_set_feature_flag(conn, wanted);
  for (const uint64_t unwanted : {
           FUSE_CAP_AUTO_INVAL_DATA,
           // The kernel would trust its own sizes, and live totals would lag.
           FUSE_CAP_WRITEBACK_CACHE,
           // Above the limit of a pipe's size libfuse makes and throws away a pipe per request.
           FUSE_CAP_SPLICE_READ,
           FUSE_CAP_SPLICE_WRITE,
           FUSE_CAP_SPLICE_MOVE,
       })
    fuse_unset_feature_flag(conn, unwanted);
  conn->max_write = 1 << 20;
  // libfuse insists that the mount option and this agree.
  conn->max_read = static_cast<unsigned>(filesystem->options().buffer_size_bytes);
}

fuse_lowlevel_ops operations_with_init() {
  fuse_lowlevel_ops table = operations();
  table.init = negotiate;
  return table;
}

}  // namespace

void Session::Destroy::operator()(fuse_session* session) const { fuse_session_destroy(session); }

Session::Session(const Options& options, const Limits& limits, const Place& place,
                 Filesystem& filesystem)
    : options_(options), limits_(limits), place_(place), filesystem_(filesystem) {
  const std::vector<std::string> arguments =
      libfuse_arguments(options, place, limits.uring_queues != 0);
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  for (const std::string& argument : arguments)
    if (fuse_opt_add_arg(&args, argument.c_str()) != 0) throw std::bad_alloc();
  const LibfuseLog log;
  static const fuse_lowlevel_ops table = operations_with_init();
  session_.reset(fuse_session_new(&args, &table, sizeof table, &filesystem));
  fuse_opt_free_args(&args);
  if (!session_) throw StartupError("libfuse refused the options: " + log.text());
}

Session::~Session() {
  if (!session_) return;
  if (rings_run_) {
    // Only the end of a loop stops the threads of libfuse that use the filesystem through rings.
    fuse_session_exit(session_.get());
    fuse_session_loop(session_.get());
  }
  if (handles_signals_) fuse_remove_signal_handlers(session_.get());
  fuse_session_unmount(session_.get());
}

void Session::mount() {
  // Before there is a mount that would stay behind, dead.
  if (fuse_set_signal_handlers(session_.get()) != 0)
    throw StartupError("cannot install signal handlers: " + Errno{errno}.message());
  handles_signals_ = true;
  {
    const LibfuseLog log;
    if (fuse_session_mount(session_.get(), place_.mountpoint.c_str()) != 0)
      throw StartupError("cannot mount on " + place_.mountpoint + ": " +
                         (log.text().empty() ? "fusermount3 refused" : log.text()));
  }
  exchange_init();
  const auto mounted = mount_at(place_.mountpoint);
  if (!mounted) return;
  filesystem_.set_own_device(mounted->device_number());
  if (::geteuid() == 0) set_read_ahead(mounted->device);
}

/// Reads and answers the kernel's first request, which is always INIT: once that has gone well the
/// mount is live, and libfuse has started what io_uring needs, or failed to.
void Session::exchange_init() {
  const LibfuseLog log;
  fuse_buf request = {};
  int received = 0;
  do
    received = fuse_session_receive_buf(session_.get(), &request);
  while (received == -EINTR && fuse_session_exited(session_.get()) == 0);
  if (received > 0) fuse_session_process_buf(session_.get(), &request);
  std::free(request.mem);
  // libfuse goes on without io_uring when it fails to start, and says so only in its log.
  const bool uring_wanted = limits_.uring_queues != 0;
  rings_run_ = uring_wanted && received > 0 && log.text().find("io-uring") == std::string::npos;
  if (received <= 0 || fuse_session_exited(session_.get()) != 0)
    throw StartupError("the mount ended before it was live" +
                       (log.text().empty() ? std::string() : ": " + log.text()));
  if (rings_run_ || !uring_wanted) return;
  if (options_.uring == UringMode::on)
    throw StartupError("uring=on: it could not be started: use uring=auto (" + log.text() + ")");
  spdlog::info("without FUSE over io_uring: {}", log.text());
}

/// INIT can lower the kernel's read-ahead, 128 KiB by default, but not raise it.
void Session::set_read_ahead(const std::string& device) const {
  std::ofstream setting("/sys/class/bdi/" + device + "/read_ahead_kb");
  if (!(setting << read_ahead_kib << std::flush))
    spdlog::warn("cannot raise the read-ahead of {}: sequential reads are slower",
                 place_.mountpoint);
}

bool Session::serve(ChangeWatcher* watcher) {
  Invalidator invalidator(filesystem_.stale(), invalidation_pause, [this](uint64_t node_id) {
    // An inode that the kernel has forgotten meanwhile is ENOENT, which is as good.
    fuse_lowlevel_notify_inval_inode(session_.get(), node_id, -1, 0);
  });
  const auto settling_delay = std::chrono::round<std::chrono::milliseconds>(
      std::chrono::duration<double>(options_.settling_delay_s));
  Settler settler(
      limits_.settling_files_max, settling_delay, [this](uint64_t node_id, Settler::Call call) {
        // Writing back at the end would hold it up for nothing.
        filesystem_.settle(node_id, call == Settler::Call::due ? Filesystem::Settling::written_back
                                                               : Filesystem::Settling::as_it_is);
      });
  filesystem_.set_settler(&settler);
  Auditor auditor(
      filesystem_,
      {.operations_per_s = options_.audit_operations_per_s, .scan_threads = limits_.scan_threads},
      place_);
  filesystem_.set_auditor(&auditor);
  if (watcher != nullptr) watcher->start(auditor);

  const std::unique_ptr<fuse_loop_config, void (*)(fuse_loop_config*)> config(
      fuse_loop_cfg_create(), fuse_loop_cfg_destroy);
  fuse_loop_cfg_set_clone_fd(config.get(), 1);
  fuse_loop_cfg_set_max_threads(config.get(), limits_.request_threads);
  const int outcome = fuse_session_loop_mt(session_.get(), config.get());
  rings_run_ = false;

  // Before the descriptor is closed, which the invalidator writes to.
  invalidator.stop();
  // Nobody serves the mount any more: whoever uses it must not wait for what the other threads are
  // at, which may be a long syncfs(2).
  fuse_session_unmount(session_.get());
  if (watcher != nullptr) watcher->stop();
  auditor.stop();
  filesystem_.set_auditor(nullptr);
  // 0: unmounted; positive: the signal that ended it.
  if (outcome < 0) spdlog::error("the mount failed: {}", Errno{-outcome}.message());
  return outcome >= 0;
}

}  // namespace tally::fs
