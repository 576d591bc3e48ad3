// A callback that several may call, and that is called once.
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "fetch/upstream.h"

namespace cake {

// The first answer counts.  If there is none, the callback hears cancelled when the last copy goes
// away: timers of a client that shuts down are dropped, and their callers must hear.  Thread-safe.
template <typename T>
class OnceDone {
 public:
  explicit OnceDone(Done<T> done) : state_(std::make_shared<State>(std::move(done))) {}
  void operator()(Result<T> result) const { answer(std::move(result)); }
  // Whether this answer was the first, the one that counts.
  bool answer(Result<T> result) const { return state_->answer(std::move(result)); }

 private:
  struct State {
    explicit State(Done<T> callback) : done(std::move(callback)) {}
    ~State() { answer(Error{Errc::cancelled, "shutting down"}); }
    bool answer(Result<T> result) {
      if (is_answered.exchange(true)) return false;
      std::exchange(done, nullptr)(std::move(result));
      return true;
    }
    std::atomic<bool> is_answered{false};
    Done<T> done;
  };
  std::shared_ptr<State> state_;
};

}  // namespace cake
