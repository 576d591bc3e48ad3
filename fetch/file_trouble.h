// What goes wrong with one file: what is tried again, who is told, for how long it is remembered.
#pragma once

#include <optional>
#include <string>

#include "fetch/fetcher.h"

namespace cake {

// Thread-safe.
class FileTrouble {
 public:
  // Both outlive this.
  FileTrouble(Fetcher& fetcher, const ContentRow& content) : fetcher_(fetcher), content_(content) {}

  // "ORG/NAME@COMMIT/PATH bytes A-B", as messages name a range.
  std::string describe(ByteRange bytes) const;

  // Whether the same question is asked again, after `attempts` failures.
  bool should_retry(const Error& error, unsigned attempts) const;
  // How long to wait first: short, because whoever waits waits with a page fault.
  static Millis retry_delay(unsigned attempts);
  void note_retry(const Error& error, ByteRange bytes) EXCLUDES(mutex_);

  // Logs and remembers a failure that readers are given; answers it with the range in front.
  Error note_failure(const Error& error, ByteRange bytes) EXCLUDES(mutex_);
  // The failure that is the answer to new readers too, for a while: under MAP_POPULATE the kernel
  // repeats a failed read for ever.
  std::optional<Error> remembered() const EXCLUDES(mutex_);
  // The upstream is back.
  void forget() EXCLUDES(mutex_);

  // Since the file was opened, for `user.cake.error`.
  std::optional<std::string> last_error() const EXCLUDES(mutex_);

 private:
  // Constant after construction.
  Fetcher& fetcher_;
  const ContentRow& content_;

  std::atomic<bool> has_remembered_{false};  // spares readers the lock

  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  std::optional<std::string> last_error_ GUARDED_BY(mutex_);
  SteadyTime next_log_ GUARDED_BY(mutex_){};  // of a retry
  std::string told_failure_ GUARDED_BY(mutex_);
  SteadyTime told_until_ GUARDED_BY(mutex_){};
  SteadyTime remembered_until_ GUARDED_BY(mutex_){};
  std::optional<Error> remembered_ GUARDED_BY(mutex_);
};

}  // namespace cake
