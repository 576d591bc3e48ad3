// Counters, named `folder.noun_verb`: "fetch.bytes_fetched".  One registry a process, made by main
// and passed down.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "store/base/mutex.h"

namespace cake {

// Thread-safe.
class Counter {
 public:
  void add(uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Thread-safe.  Counters live as long as the registry: keep the reference, not the name.
class Metrics {
 public:
  Counter& counter(std::string_view name) EXCLUDES(mutex_);
  std::map<std::string, uint64_t> values() const EXCLUDES(mutex_);

 private:
  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  std::map<std::string, std::unique_ptr<Counter>, std::less<>> counters_ GUARDED_BY(mutex_);
};

}  // namespace cake
