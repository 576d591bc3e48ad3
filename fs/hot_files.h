// `hot=auto`: which contents are read again and again, and so are worth materializing.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "store/base/clock.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"
#include "store/materialize.h"

namespace cake {

struct HotOptions {
  // Nobody read for so long: the disk is free.
  Millis idle_for{2'000};
  uint64_t min_free_bytes = 0;
};

// Watches the reads that reach the worker (what the page cache has does not), and materializes at
// idle what was read a second time.  Thread-safe.
class HotFiles {
 public:
  // `materializer` outlives this.
  HotFiles(Materializer& materializer, HotOptions options);
  // Stops what is under way.
  ~HotFiles();

  void on_read(const ContentRow& content, uint64_t bytes) EXCLUDES(mutex_);

 private:
  // Read so many times over, a content is one that is read again.
  struct Use {
    uint64_t content_bytes = 0;
    uint64_t read_bytes = 0;
  };
  void run() EXCLUDES(mutex_);
  std::optional<RowId> wait_for_candidate() EXCLUDES(mutex_);

  // Constant after construction.
  Materializer& materializer_;
  const HotOptions options_;

  std::atomic<bool> is_stopping_{false};

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  CondVar wake_;
  SteadyTime last_read_ GUARDED_BY(mutex_){};
  std::unordered_map<RowId, Use> uses_ GUARDED_BY(mutex_);
  std::unordered_set<RowId> settled_ GUARDED_BY(mutex_);  // done, or not worth another try

  ThreadPool thread_{"cake-hot", 1};  // last: uses the others
};

}  // namespace cake
