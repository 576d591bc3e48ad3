// One request for many who ask the same at once.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "fetch/upstream.h"
#include "store/base/mutex.h"

namespace cake {

// Thread-safe.
template <typename Key, typename T>
class SingleFlight {
 public:
  // True when the caller is the first and must start the work, which ends in finish().
  bool join(const Key& key, Done<T> done) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    auto& waiters = flights_[key];
    waiters.push_back(std::move(done));
    return waiters.size() == 1;
  }

  void finish(const Key& key, const Result<T>& result) EXCLUDES(mutex_) {
    std::vector<Done<T>> waiters;
    {
      MutexLock lock(mutex_);
      const auto found = flights_.find(key);
      if (found == flights_.end()) return;
      waiters = std::move(found->second);
      flights_.erase(found);
    }
    for (const Done<T>& done : waiters) done(result);
  }

 private:
  // Guarded by mutex_.  Leaf lock: callbacks run without it.
  Mutex mutex_;
  std::map<Key, std::vector<Done<T>>> flights_ GUARDED_BY(mutex_);
};

}  // namespace cake
