#include "fs/resend_ledger.h"

#include "fs/fuse_uapi.h"

namespace cake {
namespace {

// A request is looked for in this many slots from its own on; beyond, the oldest gives way.
constexpr size_t kWindow = 32;

// In ResentSlot::times: it stays found, whoever is on trial or killed before it is read again.
constexpr uint64_t kConvicted = uint64_t{1} << 32;

size_t home_slot(uint64_t unique) {
  return (unique * 0x9e37'79b9'7f4a'7c15u >> 32) % kResentSlots;
}

}  // namespace

ResendLedger::ResendLedger(KeeperState& state) : state_(state) {
  MutexLock lock(mutex_);
  const uint64_t name = state_.on_trial.exchange(0);
  if (name != 0 && state_.last_death.load() == LastDeath::crashed &&
      state_.died_ns.load() < state_.trial_ns.load() + kSuspectNs)
    slot_for(name).times.store(kConvicted);
}

ResentSlot& ResendLedger::slot_for(uint64_t unique) {
  const size_t home = home_slot(unique);
  ResentSlot* best = nullptr;
  for (size_t i = 0; i < kWindow; i++) {
    ResentSlot& slot = state_.resent[(home + i) % kResentSlots];
    const uint64_t name = slot.unique.load();
    if (name == unique) return slot;
    const bool is_free = name == 0;
    if (best == nullptr || (is_free && best->unique.load() != 0) ||
        (!is_free && best->unique.load() != 0 &&
         slot.delivered_ns.load() < best->delivered_ns.load()))
      best = &slot;
  }
  best->unique.store(0);
  best->times.store(0);
  best->delivered_ns.store(0);
  best->unique.store(unique);
  return *best;
}

ResendLedger::Verdict ResendLedger::judge(uint64_t unique, uint64_t now_ns) {
  const uint64_t name = unique & ~uapi::kUniqueResent;
  MutexLock lock(mutex_);
  ResentSlot& slot = slot_for(name);
  const uint64_t delivered_ns = slot.delivered_ns.load();
  const uint64_t died_ns = state_.died_ns.load();
  const LastDeath death = state_.last_death.load();
  const bool is_suspect = delivered_ns == 0 || died_ns < delivered_ns + kSuspectNs;
  if (death != LastDeath::planned && is_suspect) slot.times.fetch_add(1);
  slot.delivered_ns.store(now_ns);
  const uint64_t times = slot.times.load();
  if (times >= kConvicted) return Verdict::poison;
  if (times >= kPoisonTimes && state_.is_desperate.load() != 0) return Verdict::poison;
  if (death != LastDeath::crashed) return Verdict::serve;
  return times + 1 >= kPoisonTimes ? Verdict::serve_alone : Verdict::serve;
}

void ResendLedger::wait_while_on_trial() {
  while (is_on_trial_) {
    if (trial_over_.wait_until(mutex_, trial_end_)) continue;
    if (steady_now() >= trial_end_) is_on_trial_ = false;
  }
}

void ResendLedger::begin_trial(uint64_t unique) {
  MutexLock lock(mutex_);
  wait_while_on_trial();
  state_.trial_ns.store(monotonic_ns());
  state_.on_trial.store(unique & ~uapi::kUniqueResent);
  is_on_trial_ = true;
  trial_end_ = steady_now() + std::chrono::nanoseconds(kTrialNs);
}

void ResendLedger::await_trial() {
  if (!is_on_trial_) return;
  MutexLock lock(mutex_);
  wait_while_on_trial();
}

void ResendLedger::forget(uint64_t unique) {
  if ((unique & uapi::kUniqueResent) == 0) return;
  const uint64_t name = unique & ~uapi::kUniqueResent;
  MutexLock lock(mutex_);
  const size_t home = home_slot(name);
  for (size_t i = 0; i < kWindow; i++) {
    ResentSlot& slot = state_.resent[(home + i) % kResentSlots];
    if (slot.unique.load() == name) slot.unique.store(0);
  }
  if (state_.on_trial.load() != name) return;
  state_.on_trial.store(0);
  is_on_trial_ = false;
  trial_over_.notify_all();
}

}  // namespace cake
