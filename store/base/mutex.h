// Mutex, lock and condition variable that clang's -Wthread-safety understands.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define CAKE_TSA(x) __attribute__((x))
#else
#define CAKE_TSA(x)
#endif

#define CAPABILITY(x) CAKE_TSA(capability(x))
#define SCOPED_CAPABILITY CAKE_TSA(scoped_lockable)
#define GUARDED_BY(x) CAKE_TSA(guarded_by(x))
#define PT_GUARDED_BY(x) CAKE_TSA(pt_guarded_by(x))
#define REQUIRES(...) CAKE_TSA(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) CAKE_TSA(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) CAKE_TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) CAKE_TSA(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS CAKE_TSA(no_thread_safety_analysis)

namespace cake {

class CAPABILITY("mutex") Mutex {
 public:
  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  friend class CondVar;
  Mutex& mutex_;
};

// The waits want the Mutex that guards the condition, held.
class CondVar {
 public:
  void wait(Mutex& mutex) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // False when `until` passed first.
  bool wait_until(Mutex& mutex, std::chrono::steady_clock::time_point until) REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool in_time = condition_.wait_until(lock, until) == std::cv_status::no_timeout;
    lock.release();
    return in_time;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace cake
