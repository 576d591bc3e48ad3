// Time, and how long anyone may wait.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "store/base/result.h"

namespace cake {

using SteadyTime = std::chrono::steady_clock::time_point;
using Millis = std::chrono::milliseconds;

inline SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}
// Seconds since 1970, for what is stored and shown.  May jump.
int64_t unix_now();
// "2026-11-21T03:36:00Z" and back (fractions of seconds are accepted and dropped).
std::string format_rfc3339(int64_t unix_seconds);
std::optional<int64_t> parse_rfc3339(std::string_view text);

// Set once, from any thread, by whoever wants the work to end.  Thread-safe.
class CancelToken {
 public:
  void cancel() { cancelled_.store(true, std::memory_order_release); }
  bool is_cancelled() const { return cancelled_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> cancelled_{false};
};

// When to stop waiting: a point in time, a token, both, or neither (hard mounts).  Immutable.
class Deadline {
 public:
  static Deadline never() { return Deadline(); }
  static Deadline after(Millis delay) {
    Deadline deadline;
    deadline.at_ = steady_now() + delay;
    return deadline;
  }
  Deadline with(std::shared_ptr<const CancelToken> token) const {
    Deadline deadline = *this;
    deadline.token_ = std::move(token);
    return deadline;
  }
  // As long from now, ended by the same token: the next step of something that goes on.
  Deadline renewed(Millis delay) const { return is_never() ? *this : after(delay).with(token_); }
  bool is_never() const { return at_ == SteadyTime::max(); }
  SteadyTime at() const { return at_; }
  bool has_passed() const { return at_ <= steady_now(); }
  bool is_cancelled() const { return token_ && token_->is_cancelled(); }
  // Errc::cancelled or Errc::timeout when the wait is over.
  Status check() const;

 private:
  SteadyTime at_ = SteadyTime::max();
  std::shared_ptr<const CancelToken> token_;
};

}  // namespace cake
