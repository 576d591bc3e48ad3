// What happened in a mount, a line an event, for `tail -f` on /.cake/events.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include "store/base/mutex.h"
#include "store/index.h"

namespace cake {

// Lines begin with the time and a word: "resolved", "opened", or a log level.  When there is more
// than kMaxBytes the older half goes, and a reader that follows starts over, as with any file that
// was truncated.  A restarted worker starts with an empty one.  Thread-safe.
class EventLog {
 public:
  static constexpr size_t kMaxBytes = 1 << 20;

  void add(std::string_view word, std::string_view text) EXCLUDES(mutex_);
  // Once for every commit that a name leads to.
  void note_resolved(const std::string& typed, const std::string& commit) EXCLUDES(mutex_);
  // Once for every content.
  void note_opened(const ContentRow& content) EXCLUDES(mutex_);

  std::shared_ptr<const std::string> text() const EXCLUDES(mutex_);

 private:
  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  std::string lines_ GUARDED_BY(mutex_);
  mutable std::shared_ptr<const std::string> copy_ GUARDED_BY(mutex_);  // of lines_, when asked for
  std::map<std::string, std::string> resolved_ GUARDED_BY(mutex_);      // typed to commit
  std::unordered_set<RowId> opened_ GUARDED_BY(mutex_);
};

}  // namespace cake
