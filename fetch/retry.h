// When to ask again, and after how long.  Pure: time and chance are given, so tests need no clock.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "fetch/http.h"
#include "store/base/clock.h"
#include "store/base/result.h"

namespace cake {

struct BackoffOptions {
  Millis first{250};
  Millis longest{8'000};
};

// The wait before attempt `failures + 1`, after that many failures in a row: doubles from `first`
// to `longest`, less a random part of up to a half, so that clients which failed together do not
// come back together.  `random` is any number, evenly spread.
Millis backoff_delay(const BackoffOptions& options, unsigned failures, uint64_t random);

// Whether the same question may get a better answer soon.
bool is_transient_status(int status);  // 408, 429, 500, 502, 503, 504
bool is_transient(Errc code);          // offline, timeout, rate_limited, upstream
bool is_refusal(Errc code);            // denied, not_found: asking again gets the same answer

// `RateLimit: "x";r=5;t=55`, with the q of `RateLimit-Policy` if it is there.
struct RateLimit {
  int64_t remaining = 0;         // questions left
  int64_t seconds = 0;           // until they are counted anew
  std::optional<int64_t> quota;  // of a whole period
};
std::optional<RateLimit> parse_rate_limit(const HttpResponseHead& head);

// How long the server asks us to stay away: an exhausted `RateLimit: "x";r=0;t=SECONDS`, else
// `Retry-After` (seconds or an HTTP date).  One second is added, for clocks that tick apart;
// bounded to an hour.  nullopt: it does not say.
std::optional<Millis> asked_delay(const HttpResponseHead& head, int64_t unix_seconds);

// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, 5.6.7; the preferred form only).
std::optional<int64_t> parse_http_date(std::string_view text);

}  // namespace cake
