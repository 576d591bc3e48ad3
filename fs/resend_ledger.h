// Finds the request that kills its workers, among those that are sent again after each death.
//
// Without it such a request would end the mount; with mere counting it would take along every
// request that waits beside it, and an EIO under a mapping is the end of the reader.  So:
//   suspect    it came again kPoisonTimes - 1 times, each time after a worker that had it for less
//              than kSuspectNs: what waits through an afternoon of crashes did not cause them.
//   on trial   a suspect is served alone for up to kTrialNs.  A worker that crashes then convicts
//              it.  One that is killed (SIGKILL) does not: that may be an operator's doing.
//   desperate  when few more deaths end the mount, the count alone convicts.
// A planned end (drain) counts for nothing.
#pragma once

#include <atomic>
#include <cstdint>

#include "fs/keeper_state.h"
#include "store/base/clock.h"
#include "store/base/mutex.h"

namespace cake {

constexpr uint64_t kPoisonTimes = 3;
constexpr uint64_t kSuspectNs = 10'000'000'000;
constexpr uint64_t kTrialNs = 50'000'000;

// A worker's view of the counts in the keeper's memory; one a process.  Thread-safe.
class ResendLedger {
 public:
  // `state` outlives the ledger.  Passes the sentence on what the last worker died of.
  explicit ResendLedger(KeeperState& state);

  enum class Verdict { serve, serve_alone, poison };

  // Notes that the request was sent again.  serve_alone: begin_trial() before it is served.
  // poison: answer EIO instead.
  Verdict judge(uint64_t unique, uint64_t now_ns) EXCLUDES(mutex_);
  // Waits for the trial before this one, at most kTrialNs, and begins this request's.
  void begin_trial(uint64_t unique) EXCLUDES(mutex_);
  // Returns once no request is on trial: to be called before the next request is read.
  void await_trial() EXCLUDES(mutex_);
  // The request was answered, which ends its trial; nothing for one that was never sent again.
  void forget(uint64_t unique) EXCLUDES(mutex_);

 private:
  ResentSlot& slot_for(uint64_t unique) REQUIRES(mutex_);
  void wait_while_on_trial() REQUIRES(mutex_);

  KeeperState& state_;  // `resent` is written under mutex_ only

  // Leaf lock.
  Mutex mutex_;
  CondVar trial_over_;
  SteadyTime trial_end_ GUARDED_BY(mutex_);
  std::atomic<bool> is_on_trial_{false};  // written under mutex_, looked at without before a read
};

}  // namespace cake
