#include "store/base/metrics.h"

namespace cake {

Counter& Metrics::counter(std::string_view name) {
  MutexLock lock(mutex_);
  auto found = counters_.find(name);
  if (found == counters_.end())
    found = counters_.emplace(std::string(name), std::make_unique<Counter>()).first;
  return *found->second;
}

std::map<std::string, uint64_t> Metrics::values() const {
  MutexLock lock(mutex_);
  std::map<std::string, uint64_t> out;
  for (const auto& [name, counter] : counters_) out[name] = counter->value();
  return out;
}

}  // namespace cake
