#include "store/base/thread_pool.h"

#include <pthread.h>

namespace cake {

void name_this_thread(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
}

ThreadPool::ThreadPool(std::string name, unsigned threads) {
  for (unsigned i = 0; i < threads; i++)
    threads_.emplace_back([this, name] {
      name_this_thread(name);
      run();
    });
}

ThreadPool::~ThreadPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::post(Priority priority, std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    (priority == Priority::demand ? demand_ : background_).push_back(std::move(task));
  }
  wake_.notify_one();
}

size_t ThreadPool::queued() const {
  MutexLock lock(mutex_);
  return demand_.size() + background_.size();
}

void ThreadPool::run() {
  while (true) {
    std::function<void()> task;
    {
      MutexLock lock(mutex_);
      while (demand_.empty() && background_.empty() && !stopping_) wake_.wait(mutex_);
      auto& queue = demand_.empty() ? background_ : demand_;
      if (queue.empty()) return;
      task = std::move(queue.front());
      queue.pop_front();
    }
    task();
  }
}

}  // namespace cake
