// What a mount is doing, for `cake ps`: a small file beside the mount's record, so that asking
// never waits for a mount that hangs.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "store/base/clock.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"

namespace cake {

struct Traffic {
  uint64_t fetched_bytes = 0;  // since the mount was made, workers before this one included
  uint64_t open_files = 0;
  uint64_t rate = 0;  // bytes a second, lately
  int64_t at = 0;     // Unix seconds
};

std::string format_traffic(const Traffic& traffic);
std::optional<Traffic> parse_traffic(std::string_view text);

std::string traffic_path(pid_t keeper);
// nullopt when the mount's worker has written none yet.
std::optional<Traffic> read_traffic(pid_t keeper);
// Removes the files of mounts whose keeper is gone.
void remove_stale_traffic();

// Writes the file while it lives, when something has changed.  Thread-safe; a thread of its own.
class TrafficReport {
 public:
  static constexpr Millis kInterval{2'000};
  struct Counts {
    uint64_t fetched_bytes = 0;  // by this worker
    uint64_t open_files = 0;
  };
  // `goes_on`: the keeper has lived through workers before this one, and their counts are added to.
  // `count` is called on that thread.
  TrafficReport(pid_t keeper, bool goes_on, std::function<Counts()> count);
  ~TrafficReport();
  TrafficReport(const TrafficReport&) = delete;
  TrafficReport& operator=(const TrafficReport&) = delete;

 private:
  void run() EXCLUDES(mutex_);
  bool wait() EXCLUDES(mutex_);

  // Constant after construction.
  const std::string path_;
  const std::function<Counts()> count_;
  uint64_t before_bytes_ = 0;  // by earlier workers

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  CondVar changed_;
  bool is_stopping_ GUARDED_BY(mutex_) = false;

  ThreadPool thread_{"cake-traffic", 1};  // last: uses all of the above
};

}  // namespace cake
