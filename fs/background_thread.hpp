#pragma once

#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <thread>
#include <utility>

namespace tally::fs {

/// Starts a thread that takes no signal, so that those meant for the process reach the main thread,
/// which waits for them. `name`: at most 15 bytes, for ps and debuggers. Throws std::system_error.
template <class Function>
std::thread start_background_thread(const char* name, Function function) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const auto restore = [&before] { pthread_sigmask(SIG_SETMASK, &before, nullptr); };
  try {
    std::thread thread(std::move(function));
    restore();
    pthread_setname_np(thread.native_handle(), name);
    return thread;
  } catch (const std::system_error&) {
    restore();
    throw;
  }
}

}  // namespace tally::fs
