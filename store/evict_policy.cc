#include "store/evict_policy.h"

#include <algorithm>

namespace cake {

void EvictionPlan::count(unsigned uses, int64_t last_access, uint64_t bytes) {
  Queue& queue = uses == 0 ? probation_ : proven_;
  queue.bytes += bytes;
  queue.bytes_by_time[std::min(last_access, now_)] += bytes;
}

void EvictionPlan::Queue::set_cut(uint64_t bytes_to_free) {
  uint64_t left = std::min(bytes_to_free, bytes);
  for (const auto& [time, here] : bytes_by_time) {
    before = time;
    rest = std::min(left, here);
    left -= rest;
    if (left == 0) return;
  }
}

void EvictionPlan::decide(uint64_t bytes_to_free) {
  const auto share = static_cast<uint64_t>(static_cast<double>(counted_bytes()) * share_);
  const uint64_t surplus = probation_.bytes - std::min(probation_.bytes, share);
  uint64_t from_probation = std::min(surplus, bytes_to_free);
  const uint64_t from_proven = std::min(proven_.bytes, bytes_to_free - from_probation);
  // What the proven cannot give comes from the share after all.
  from_probation = bytes_to_free - from_proven;
  probation_.set_cut(from_probation);
  proven_.set_cut(from_proven);
}

bool EvictionPlan::takes(unsigned uses, int64_t last_access, uint64_t bytes) {
  Queue& queue = uses == 0 ? probation_ : proven_;
  const int64_t time = std::min(last_access, now_);
  if (time < queue.before) return true;
  if (time > queue.before || queue.rest == 0) return false;
  queue.rest -= std::min(queue.rest, bytes);
  return true;
}

double adapted_share(double share, const GhostCounts& ghosts, uint64_t chunks) {
  // Neither queue is ever given up, or its ghosts could not speak for it.
  constexpr double kLeast = 0.05, kMost = 0.95;
  // The rarer kind of ghost tells more; within reason.
  constexpr double kMostWeight = 8;
  if (chunks == 0) return share;
  const auto weight = [=](uint64_t own, uint64_t other) {
    const double ratio = static_cast<double>(std::max<uint64_t>(1, other)) /
                         static_cast<double>(std::max<uint64_t>(1, own));
    return std::clamp(ratio, 1.0, kMostWeight);
  };
  const double up =
      static_cast<double>(ghosts.probation_back) * weight(ghosts.probation, ghosts.proven);
  const double down =
      static_cast<double>(ghosts.proven_back) * weight(ghosts.proven, ghosts.probation);
  return std::clamp(share + (up - down) / static_cast<double>(chunks), kLeast, kMost);
}

}  // namespace cake
