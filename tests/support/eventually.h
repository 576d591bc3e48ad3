// Waiting for what another thread does.
#pragma once

#include <thread>

#include "store/base/clock.h"

namespace cake {

// Whether the condition holds within two minutes, which even a busy machine does not need.
template <typename Condition>
bool eventually(Condition condition) {
  const SteadyTime end = steady_now() + Millis(120'000);
  while (!condition() && steady_now() < end) std::this_thread::sleep_for(Millis(5));
  return condition();
}

}  // namespace cake
