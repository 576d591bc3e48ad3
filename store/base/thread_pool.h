// Threads for work that is neither FUSE's nor the network's: decode, encode, hash, disk writes.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "store/base/mutex.h"

namespace cake {

// Thread-safe.  Tasks of `demand` always start before those of `background`.
class ThreadPool {
 public:
  enum class Priority { demand, background };

  // `name` shows in ps -L (15 letters at most).
  ThreadPool(std::string name, unsigned threads);
  // Runs what is queued, then joins.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void post(Priority priority, std::function<void()> task) EXCLUDES(mutex_);
  size_t queued() const EXCLUDES(mutex_);

 private:
  void run() EXCLUDES(mutex_);

  // Guarded by mutex_.  Leaf lock: tasks run without it.
  mutable Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> demand_ GUARDED_BY(mutex_);
  std::deque<std::function<void()>> background_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;

  // Constant after construction.
  std::vector<std::thread> threads_;
};

// Names the calling thread for ps, gdb and perf; cut to the kernel's 15 letters.
void name_this_thread(const std::string& name);

}  // namespace cake
