#include "fetch/pace.h"

#include <algorithm>

#include "fetch/retry.h"

namespace cake {
namespace {

// Of a server that does not say its quota.
constexpr int64_t kAssumedQuota = 400;
// Storage hosts change names now and then; more at a time than this is somebody's mischief.
constexpr size_t kMaxServers = 64;

}  // namespace

void Pace::note(const HttpResponseHead& head, SteadyTime now, int64_t unix_seconds) {
  if (head.status == 429 || head.status == 503)
    if (const auto asked = asked_delay(head, unix_seconds))
      quiet_until_ = std::max(quiet_until_, now + *asked);
  const std::optional<RateLimit> limit = parse_rate_limit(head);
  if (!limit) return;
  if (limit->remaining >= limit->quota.value_or(kAssumedQuota) / 4) {
    spacing_ = Millis(0);
    return;
  }
  // An hour bounds what a hostile number may do.
  const int64_t left_ms = 1000 * std::min<int64_t>(limit->seconds, 3600);
  spacing_ = Millis(left_ms / (limit->remaining + 1));
  spaced_until_ = now + Millis(left_ms);
}

SteadyTime Pace::take_turn(SteadyTime now) {
  SteadyTime turn = std::max(now, quiet_until_);
  if (spacing_.count() > 0 && now < spaced_until_)
    turn = std::max(turn, std::min(last_turn_ + spacing_, spaced_until_));
  last_turn_ = turn;
  return turn;
}

void Paces::note(const std::string& server, const HttpResponseHead& head) {
  MutexLock lock(mutex_);
  if (!by_server_.contains(server) && by_server_.size() >= kMaxServers) by_server_.clear();
  by_server_[server].note(head, steady_now(), unix_now());
}

SteadyTime Paces::take_turn(const std::string& server) {
  MutexLock lock(mutex_);
  const auto found = by_server_.find(server);
  return found == by_server_.end() ? steady_now() : found->second.take_turn(steady_now());
}

}  // namespace cake
