#pragma once

#include <memory>

#include <fuse_lowlevel.h>

#include "fs/filesystem.hpp"
#include "fs/limits.hpp"
#include "fs/options.hpp"
#include "fs/preflight.hpp"

namespace tally::fs {

class ChangeWatcher;

/// One mount, from mount(2) to its end. Made on the main thread, after any fork.
///
///     Session session(options, limits, place, filesystem);
///     session.mount();         // from here on, callers wait for serve()
///     session.serve(watcher);  // until the mount or the process is to end
class Session {
 public:
  /// Prepares the connection; nothing is mounted yet. `filesystem` must outlive the session. Throws
  /// StartupError.
  Session(const Options& options, const Limits& limits, const Place& place, Filesystem& filesystem);

  /// Unmounts, if the mount is still there (lazily, so that whoever uses it does not hold us up).
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Mounts and agrees with the kernel on the protocol. From now on SIGTERM, SIGINT and SIGHUP end
  /// serve(). Throws StartupError, with nothing mounted.
  void mount();

  /// Answers requests until a signal arrives or somebody unmounts. False if the connection failed
  /// for another reason (which is logged). `watcher`: whoever looks for changes behind the mount,
  /// or null; runs meanwhile.
  bool serve(ChangeWatcher* watcher);

 private:
  struct Destroy {
    void operator()(fuse_session* session) const;
  };

  void exchange_init();
  void set_read_ahead(const std::string& device) const;

  const Options& options_;
  const Limits& limits_;
  const Place& place_;
  Filesystem& filesystem_;
  bool rings_run_ = false;  // libfuse's threads for io_uring, which serve() ends
  bool handles_signals_ = false;
  std::unique_ptr<fuse_session, Destroy> session_;
};

}  // namespace tally::fs
