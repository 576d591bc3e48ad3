#include "fetch/flow.h"

#include <algorithm>

namespace cake {
namespace {

constexpr Millis kWindow{250};
constexpr double kMoreIsWorthIt = 1.05;
constexpr double kFewerIsEnough = 0.975;
constexpr Millis kHoldAfterTrial{3'000};
constexpr Millis kHoldAfterStall{3'000};
constexpr Millis kHoldAfterLimit{10'000};
// Transfers that fail together are one event.
constexpr Millis kShrinkEvery{1'000};
constexpr unsigned kFewest = 2;
// Below this only faults take it: one connection that stands still is then not half of the link.
constexpr unsigned kFewestTried = 4;

constexpr uint64_t kSmallestRange = 1 * kMiB;
constexpr uint64_t kLargestRange = 16 * kMiB;
constexpr uint64_t kFirstRange = 4 * kMiB;
constexpr double kBodyToFirstByte = 8;
constexpr double kShortestMs = 20;
constexpr double kNewWeight = 0.25;

double smoothed(double old_value, double new_value) {
  return old_value == 0 ? new_value : old_value + kNewWeight * (new_value - old_value);
}

}  // namespace

Flow::Flow(FlowOptions options)
    : options_(options),
      transfers_(
          std::clamp(options.first_transfers, kFewest, std::max(kFewest, options.max_transfers))) {}

void Flow::received(uint64_t bytes, SteadyTime now) {
  if (window_began_ == SteadyTime{}) window_began_ = now;
  window_bytes_ += bytes;
  if (now - window_began_ >= kWindow) end_window(now);
}

void Flow::end_window(SteadyTime now) {
  const double seconds = std::chrono::duration<double>(now - window_began_).count();
  const double rate = static_cast<double>(window_bytes_) / seconds;
  const bool was_refused = was_refused_;
  const bool was_settling = is_settling_;
  // A pause of the readers is no rate of the link.
  const bool is_valid = now - window_began_ < 4 * kWindow;
  window_began_ = now;
  window_bytes_ = 0;
  was_refused_ = false;
  is_settling_ = false;
  if (was_settling || !is_valid || !was_refused) return;
  if (is_trial_ && !end_trial(rate, now)) return;
  if (now >= hold_until_) begin_trial(rate);
}

bool Flow::end_trial(double rate, SteadyTime now) {
  is_trial_ = false;
  const bool is_more = try_ == Try::more;
  const bool pays = rate >= rate_before_ * (is_more ? kMoreIsWorthIt : kFewerIsEnough);
  climbs_ = pays && is_more;
  if (!climbs_) hold_until_ = now + kHoldAfterTrial;
  if (pays) return true;
  transfers_ = transfers_before_;
  is_settling_ = true;
  try_ = is_more ? Try::fewer : Try::more;
  return false;
}

void Flow::begin_trial(double rate) {
  if (try_ == Try::more && transfers_ >= options_.max_transfers) try_ = Try::fewer;
  if (try_ == Try::fewer && transfers_ <= kFewestTried) try_ = Try::more;
  const bool is_more = try_ == Try::more;
  const unsigned step = std::max(1U, transfers_ / (is_more && climbs_ ? 2 : 4));
  const unsigned other = is_more ? std::min(options_.max_transfers, transfers_ + step)
                                 : std::max(kFewestTried, transfers_ - step);
  if (other == transfers_) return;
  is_trial_ = true;
  is_settling_ = true;
  transfers_before_ = transfers_;
  rate_before_ = rate;
  transfers_ = other;
}

void Flow::ended(End end, SteadyTime now) {
  if (active_ > 0) active_--;
  if (end == End::limited) shrink(transfers_ / 2, kHoldAfterLimit, now);
  if (end == End::stalled) shrink(transfers_ - transfers_ / 4, kHoldAfterStall, now);
}

void Flow::shrink(unsigned to, Millis hold, SteadyTime now) {
  if (shrunk_at_ != SteadyTime{} && now - shrunk_at_ < kShrinkEvery) return;
  shrunk_at_ = now;
  transfers_ = std::max(kFewest, to);
  hold_until_ = std::max(hold_until_, now + hold);
  is_trial_ = false;
  try_ = Try::more;
  climbs_ = true;
  is_settling_ = true;
}

void Flow::measured(Millis first_byte, Millis body, uint64_t bytes) {
  // The shortest of late: a first byte that waited behind other bodies says little of the way.
  const auto first_ms = static_cast<double>(std::max<int64_t>(first_byte.count(), 1));
  first_byte_ms_ = first_byte_ms_ == 0 || first_ms < first_byte_ms_
                       ? first_ms
                       : first_byte_ms_ + (first_ms - first_byte_ms_) / 16;
  const auto body_ms = static_cast<double>(std::max<int64_t>(body.count(), 1));
  bytes_per_ms_ = smoothed(bytes_per_ms_, static_cast<double>(bytes) / body_ms);
}

uint64_t Flow::range_bytes(uint64_t wanted_bytes, size_t queued) const {
  double largest = kFirstRange, smallest = kSmallestRange;
  if (bytes_per_ms_ > 0) {
    largest = bytes_per_ms_ * std::max(kBodyToFirstByte * first_byte_ms_, kShortestMs);
    smallest = bytes_per_ms_ * kShortestMs;
  }
  const uint64_t busy = active_ + queued;
  const uint64_t part = wanted_bytes / (busy < transfers_ ? transfers_ - busy : 1);
  const uint64_t share = options_.max_outstanding_bytes / transfers_;
  const auto clamped = [](double bytes) {
    return static_cast<uint64_t>(std::clamp<double>(bytes, kSmallestRange, kLargestRange));
  };
  const uint64_t bytes = std::min({std::max(part, clamped(smallest)), clamped(largest), share});
  return std::max(bytes, kSmallestRange) / kMiB * kMiB;
}

}  // namespace cake
