#pragma once

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

// Annotations that let clang's -Wthread-safety prove at compile time which lock guards what and in
// which order locks are taken (https://clang.llvm.org/docs/ThreadSafetyAnalysis.html). gcc sees
// nothing. The locks of libstdc++ carry no annotations, hence the wrappers below.
#if defined(__clang__)
#define TALLY_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define TALLY_THREAD_ANNOTATION(x)
#endif

// On types: a lock, and an RAII holder of one.
#define TALLY_CAPABILITY(name) TALLY_THREAD_ANNOTATION(capability(name))
#define TALLY_SCOPED_CAPABILITY TALLY_THREAD_ANNOTATION(scoped_lockable)

// On data members: the lock that must be held to touch the member.
#define TALLY_GUARDED_BY(lock) TALLY_THREAD_ANNOTATION(guarded_by(lock))

// On locks that are members: the lock order. Checked under -Wthread-safety-beta only.
#define TALLY_ACQUIRED_BEFORE(...) TALLY_THREAD_ANNOTATION(acquired_before(__VA_ARGS__))

// On functions: locks the caller holds, or must not hold.
#define TALLY_REQUIRES(...) TALLY_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define TALLY_REQUIRES_SHARED(...) TALLY_THREAD_ANNOTATION(requires_shared_capability(__VA_ARGS__))
#define TALLY_EXCLUDES(...) TALLY_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))

// On functions: locks that the call takes or gives back.
#define TALLY_ACQUIRE(...) TALLY_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define TALLY_ACQUIRE_SHARED(...) TALLY_THREAD_ANNOTATION(acquire_shared_capability(__VA_ARGS__))
#define TALLY_RELEASE(...) TALLY_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define TALLY_RELEASE_SHARED(...) TALLY_THREAD_ANNOTATION(release_shared_capability(__VA_ARGS__))
#define TALLY_RELEASE_GENERIC(...) TALLY_THREAD_ANNOTATION(release_generic_capability(__VA_ARGS__))
#define TALLY_RETURN_CAPABILITY(lock) TALLY_THREAD_ANNOTATION(lock_returned(lock))

// On functions that are right in a way the analysis can't see; a comment there says why.
#define TALLY_NO_THREAD_SAFETY_ANALYSIS TALLY_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace tally {

/// std::mutex with annotations. Prefer MutexLock to calling lock() and unlock().
class TALLY_CAPABILITY("mutex") Mutex {
 public:
  void lock() TALLY_ACQUIRE() { native_.lock(); }
  void unlock() TALLY_RELEASE() { native_.unlock(); }

 private:
  friend class CondVar;
  std::mutex native_;
};

/// Holds a Mutex for a scope.
class TALLY_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TALLY_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() TALLY_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// A reader-writer lock on which a waiting writer holds up new readers. std::shared_mutex lets
/// readers pass (pthread_rwlockattr_setkind_np(3)), so that a busy mount would starve renames.
/// The price: a thread that holds it shared must not take it shared again.
class TALLY_CAPABILITY("shared mutex") SharedMutex {
 public:
  SharedMutex() = default;
  ~SharedMutex() { pthread_rwlock_destroy(&native_); }
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;

  void lock() TALLY_ACQUIRE() { pthread_rwlock_wrlock(&native_); }
  void unlock() TALLY_RELEASE() { pthread_rwlock_unlock(&native_); }
  void lock_shared() TALLY_ACQUIRE_SHARED() { pthread_rwlock_rdlock(&native_); }
  void unlock_shared() TALLY_RELEASE_SHARED() { pthread_rwlock_unlock(&native_); }

 private:
  pthread_rwlock_t native_ = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
};

/// Holds a SharedMutex shared for a scope.
class TALLY_SCOPED_CAPABILITY ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mutex) TALLY_ACQUIRE_SHARED(mutex) : mutex_(mutex) {
    mutex_.lock_shared();
  }
  ~ReaderLock() TALLY_RELEASE_GENERIC() { mutex_.unlock_shared(); }
  ReaderLock(const ReaderLock&) = delete;
  ReaderLock& operator=(const ReaderLock&) = delete;

 private:
  SharedMutex& mutex_;
};

/// Holds a SharedMutex exclusively for a scope.
class TALLY_SCOPED_CAPABILITY WriterLock {
 public:
  explicit WriterLock(SharedMutex& mutex) TALLY_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~WriterLock() TALLY_RELEASE() { mutex_.unlock(); }
  WriterLock(const WriterLock&) = delete;
  WriterLock& operator=(const WriterLock&) = delete;

 private:
  SharedMutex& mutex_;
};

/// A condition variable for a Mutex that the caller holds, by MutexLock or otherwise; it is held
/// again when a wait returns. Waits may wake for no reason: call them in a `while (!condition)`
/// loop. There is no form with a predicate, because the analysis does not see into a lambda.
class CondVar {
 public:
  void wait(Mutex& mutex) TALLY_REQUIRES(mutex) {
    std::unique_lock held(mutex.native_, std::adopt_lock);
    native_.wait(held);
    held.release();
  }

  /// As wait(), until `deadline` at the latest. Returns false when the deadline has passed.
  [[nodiscard]] bool wait_until(Mutex& mutex, std::chrono::steady_clock::time_point deadline)
      TALLY_REQUIRES(mutex) {
    std::unique_lock held(mutex.native_, std::adopt_lock);
    const std::cv_status status = native_.wait_until(held, deadline);
    held.release();
    return status == std::cv_status::no_timeout;
  }

  void notify_one() noexcept { native_.notify_one(); }
  void notify_all() noexcept { native_.notify_all(); }

 private:
  std::condition_variable native_;
};

}  // namespace tally
