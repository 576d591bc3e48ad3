// How long the head of an answer is waited for before the question is asked again, on another
// connection.
#pragma once

#include <algorithm>
#include <string>
#include <unordered_map>

#include "store/base/clock.h"
#include "store/base/mutex.h"

namespace cake {

// A silent connection is given up soon, since a new one mostly helps; but a server that has to get
// the thing first (a mirror, the list of a huge repo) would never be heard out.  So who was given
// up on is waited for twice as long the next time, until it answers in the usual time.
// Thread-safe; leaf lock.
class HeadPatience {
 public:
  static constexpr int kMost = 3;  // times the usual

  explicit HeadPatience(Millis usual) : usual_(usual) {}

  Millis of(const std::string& url) const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const auto found = known_.find(question_of(url));
    return found == known_.end() ? usual_ : found->second;
  }
  // Nothing came in `waited`.
  void given_up(const std::string& url, Millis waited) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (known_.size() >= kMostKnown) known_.clear();
    // Of several at the same time the first doubles it.
    Millis& patience = known_.try_emplace(question_of(url), usual_).first->second;
    patience = std::min(std::max(patience, 2 * waited), kMost * usual_);
  }
  void answered(const std::string& url, Millis after) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (after < usual_) known_.erase(question_of(url));
  }

 private:
  static constexpr size_t kMostKnown = 1'000;

  // Signatures differ from one time to the next.
  static std::string question_of(const std::string& url) { return url.substr(0, url.find('?')); }

  const Millis usual_;

  mutable Mutex mutex_;
  std::unordered_map<std::string, Millis> known_ GUARDED_BY(mutex_);
};

}  // namespace cake
