// Where the bytes of a file are fetched from: one question to the hub per file and hour.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "fetch/url.h"
#include "store/base/clock.h"
#include "store/base/mutex.h"

namespace cake {

struct Route {
  Url url;
  bool is_hub = false;  // of the hub's own origin, all the way: the token goes along
  SteadyTime expires_at;
  uint64_t number = 0;  // given by settle; tells a route from its successor
};

// Routes by file, at most 4,096 with the least recently used forgotten, and who waits while one is
// being found.  `Read` is whatever waits.  Thread-safe.
template <typename Read>
class FileRoutes {
 public:
  using ReadPtr = std::shared_ptr<Read>;

  enum class Turn {
    go,    // there is a route
    lead,  // find it, then settle or abandon
    wait,  // somebody else does; the read was put by
  };
  struct Start {
    Turn turn;
    std::optional<Route> route;
    bool is_first_waiter = false;  // of all files: nobody looks after the waiting yet
  };
  Start start(const std::string& key, const ReadPtr& read) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    Entry& entry = touch(key);
    if (entry.route && entry.route->expires_at > steady_now()) return {Turn::go, entry.route};
    if (!entry.is_resolving) {
      entry.is_resolving = true;
      return {Turn::lead, std::nullopt};
    }
    entry.waiting.push_back(read);
    return {Turn::wait, std::nullopt, waiting_count_++ == 0};
  }

  // The leader's answer, numbered; the waiting go there.
  std::vector<ReadPtr> settle(const std::string& key, Route& route) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    route.number = ++last_number_;
    Entry& entry = touch(key);
    entry.route = route;
    entry.etag.clear();
    return end_resolving(entry);
  }

  // The leader found nothing.
  std::vector<ReadPtr> abandon(const std::string& key) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return end_resolving(touch(key));
  }

  // The route does not serve any more, unless it was replaced already.
  void drop(const std::string& key, uint64_t number) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return;
    Entry& entry = *found->second;
    if (entry.route && entry.route->number == number) entry.route.reset();
  }

  // Whether all answers of one route carry the same tag; the first one seen counts.
  bool is_same_etag(const std::string& key, uint64_t number, std::string_view etag)
      EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const auto found = by_key_.find(key);
    if (found == by_key_.end() || etag.empty()) return true;
    Entry& entry = *found->second;
    if (!entry.route || entry.route->number != number) return true;
    if (entry.etag.empty()) entry.etag = etag;
    return entry.etag == etag;
  }

  // Takes out the waiting whose deadline is over; `is_any_left` says whether to look again.
  std::vector<ReadPtr> take_overdue(bool& is_any_left) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    std::vector<ReadPtr> overdue;
    for (Entry& entry : entries_) {
      std::erase_if(entry.waiting, [&](const ReadPtr& read) {
        if (read->deadline.check()) return false;
        overdue.push_back(read);
        return true;
      });
    }
    waiting_count_ -= overdue.size();
    is_any_left = waiting_count_ > 0;
    return overdue;
  }

 private:
  static constexpr size_t kMaxEntries = 4'096;

  struct Entry {
    std::string key;
    std::optional<Route> route;
    std::string etag;
    bool is_resolving = false;
    std::vector<ReadPtr> waiting;
  };

  // Moves or adds it to the front.
  Entry& touch(const std::string& key) REQUIRES(mutex_) {
    if (const auto found = by_key_.find(key); found != by_key_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return *found->second;
    }
    // One that is being resolved has a leader who will come back to it.
    for (auto last = entries_.end(); entries_.size() >= kMaxEntries && last != entries_.begin();) {
      --last;
      if (last->is_resolving) continue;
      by_key_.erase(last->key);
      last = entries_.erase(last);
    }
    entries_.push_front(Entry{.key = key});
    by_key_[key] = entries_.begin();
    return entries_.front();
  }

  std::vector<ReadPtr> end_resolving(Entry& entry) REQUIRES(mutex_) {
    entry.is_resolving = false;
    waiting_count_ -= entry.waiting.size();
    return std::exchange(entry.waiting, {});
  }

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::list<Entry> entries_ GUARDED_BY(mutex_);  // most recent first
  std::unordered_map<std::string, typename std::list<Entry>::iterator> by_key_ GUARDED_BY(mutex_);
  size_t waiting_count_ GUARDED_BY(mutex_) = 0;
  uint64_t last_number_ GUARDED_BY(mutex_) = 0;
};

}  // namespace cake
