// How fast a server wants to be asked.
#pragma once

#include <map>
#include <string>

#include "fetch/http.h"
#include "store/base/clock.h"
#include "store/base/mutex.h"

namespace cake {

// One counter of one server: a hub's API, its resolve URLs, a storage host.  Pure: time is given.
//
// A 429 or 503 that names a delay stops all questions for so long.  Where answers carry RateLimit
// and less than a quarter of the quota is left, the rest is spread over what is left of the period,
// so that it is never used up: a wait of seconds for each instead of minutes for all.
class Pace {
 public:
  void note(const HttpResponseHead& head, SteadyTime now, int64_t unix_seconds);
  // When the next question may be sent; the turn is taken.
  SteadyTime take_turn(SteadyTime now);

 private:
  SteadyTime quiet_until_{};
  SteadyTime last_turn_{};
  // Between two questions, until then.
  Millis spacing_{0};
  SteadyTime spaced_until_{};
};

// The paces of all servers talked to, by a name of the caller's choice.  Thread-safe.
class Paces {
 public:
  void note(const std::string& server, const HttpResponseHead& head) EXCLUDES(mutex_);
  SteadyTime take_turn(const std::string& server) EXCLUDES(mutex_);

 private:
  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::map<std::string, Pace> by_server_ GUARDED_BY(mutex_);
};

}  // namespace cake
