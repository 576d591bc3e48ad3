// Where the hub has a content.  The same bytes often lie in several repos and commits, of which one
// may be gated, renamed or gone.
#pragma once

#include <vector>

#include "fetch/upstream.h"
#include "store/index.h"

namespace cake {

// Thread-safe.
class FilePlaces {
 public:
  // Both outlive this.  Begins with the place that `content` names, the newest one known.
  FilePlaces(Index& index, const ContentRow& content);

  FileAddress address() const EXCLUDES(mutex_);

  // The hub refused this address (denied, not_found).  Whether another may do: address() is that
  // one then.  When all known places refused, none is tried again for a few seconds.  Reads the
  // index: not for the upstream's threads.
  bool leave(const FileAddress& refused) EXCLUDES(mutex_);

 private:
  // Constant after construction.
  Index& index_;
  const ContentRow& content_;

  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  ContentPlace place_ GUARDED_BY(mutex_);
  std::vector<ContentPlace> refused_ GUARDED_BY(mutex_);
  SteadyTime exhausted_until_ GUARDED_BY(mutex_){};
};

}  // namespace cake
