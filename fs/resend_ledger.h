// Counts how often a request came again after a crash, to find the one that causes the crashes.
//
// Without it a request that kills its worker would kill every worker, and so end the mount.  A
// crash is held against a request only if the worker had it for less than kSuspectNs: what waits
// for a slow network through an afternoon of crashes did not cause them.  A planned end (drain) is
// held against none.
#pragma once

#include <cstdint>

#include "fs/keeper_state.h"
#include "store/base/mutex.h"

namespace cake {

constexpr uint64_t kPoisonTimes = 3;
constexpr uint64_t kSuspectNs = 10'000'000'000;

// A worker's view of the counts in the keeper's memory; one a process.  Thread-safe.
class ResendLedger {
 public:
  // `state` outlives the ledger.
  explicit ResendLedger(KeeperState& state) : state_(state) {}

  // Notes that the request was sent again.  True: the third time; answer EIO instead of serving it.
  bool is_poison(uint64_t unique, uint64_t now_ns) EXCLUDES(mutex_);
  // The request was answered; nothing to do for one that was never sent again.
  void forget(uint64_t unique) EXCLUDES(mutex_);

 private:
  ResentSlot& slot_for(uint64_t unique) REQUIRES(mutex_);

  KeeperState& state_;  // `resent` is written under mutex_ only

  // Leaf lock.
  Mutex mutex_;
};

}  // namespace cake
