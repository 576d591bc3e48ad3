// Whether the upstream answers, for those who choose between waiting and what is at hand.
#pragma once

#include <atomic>
#include <cstdint>

#include "store/base/clock.h"
#include "store/base/result.h"

namespace cake {

// Down from a failed attempt (no route, time-out, broken answer) until the next good one.
// Thread-safe.
class UpstreamHealth {
 public:
  void succeeded() { failures_.store(0, std::memory_order_relaxed); }
  void failed(Errc code) {
    if (code == Errc::offline || code == Errc::timeout || code == Errc::upstream)
      failures_.fetch_add(1, std::memory_order_relaxed);
  }
  bool is_down() const { return failures_.load(std::memory_order_relaxed) != 0; }

 private:
  std::atomic<uint32_t> failures_{0};
};

}  // namespace cake
