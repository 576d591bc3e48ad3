#include "fs/resend_ledger.h"

#include "fs/fuse_uapi.h"

namespace cake {
namespace {

// A request is looked for in this many slots from its own on; beyond, the oldest gives way.
constexpr size_t kWindow = 32;

size_t home_slot(uint64_t unique) {
  return (unique * 0x9e37'79b9'7f4a'7c15u >> 32) % kResentSlots;
}

}  // namespace

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

bool ResendLedger::is_poison(uint64_t unique, uint64_t now_ns) {
  MutexLock lock(mutex_);
  ResentSlot& slot = slot_for(unique & ~uapi::kUniqueResent);
  const uint64_t delivered_ns = slot.delivered_ns.load();
  const uint64_t crashed_ns = state_.crashed_ns.load();
  const bool is_suspect = delivered_ns == 0 || crashed_ns < delivered_ns + kSuspectNs;
  if (state_.has_crashed.load() != 0 && is_suspect) slot.times.fetch_add(1);
  slot.delivered_ns.store(now_ns);
  return slot.times.load() >= kPoisonTimes;
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
}

}  // namespace cake
