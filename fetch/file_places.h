// Where the hub has a content.  The same bytes often lie in several repos and commits, of which one
// may be gated, renamed or gone.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "fetch/upstream.h"
#include "store/base/mutex.h"
#include "store/index.h"

namespace cake {

// Thread-safe.
class FilePlaces {
 public:
  // Both outlive this.  Begins with the place that `content` names, the newest one known.
  FilePlaces(Index& index, const ContentRow& content);

  FileAddress address() const EXCLUDES(mutex_);

  // The hub refused this address (denied, not_found).  `then` hears whether another may do:
  // address() is that one then.  When all known places refused, none is tried again for a few
  // seconds.  May read the index: not for the upstream's threads.  One caller at a time does, and
  // answers the others, so that none of them holds a thread.
  using Then = std::function<void(bool has_other)>;
  void leave(const FileAddress& refused, Then then) EXCLUDES(mutex_);

 private:
  struct Asker {
    ContentPlace left;
    Then then;
  };
  // Nothing when the index is to be asked first.
  std::optional<bool> try_next(const ContentPlace& left) REQUIRES(mutex_);
  // Asks it, for all who wait.
  void look() EXCLUDES(mutex_);

  // Constant after construction.
  Index& index_;
  const ContentRow& content_;

  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  ContentPlace place_ GUARDED_BY(mutex_);
  std::vector<ContentPlace> refused_ GUARDED_BY(mutex_);
  SteadyTime exhausted_until_ GUARDED_BY(mutex_){};
  std::vector<ContentPlace> known_ GUARDED_BY(mutex_);  // as the index had them
  SteadyTime known_until_ GUARDED_BY(mutex_){};
  bool is_looking_ GUARDED_BY(mutex_) = false;
  std::vector<Asker> askers_ GUARDED_BY(mutex_);
};

}  // namespace cake
