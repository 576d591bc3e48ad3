// Servers that ignore Range and send the whole file: one transfer whose passing bytes are all kept.
#pragma once

#include <cstdint>
#include <vector>

#include "fetch/upstream.h"
#include "store/base/bytes.h"
#include "store/base/mutex.h"

namespace cake {

// One a file.  Once a server has ignored the ranges of some requests in a row, what it sends for
// the next is the file's stream; what is wanted meanwhile is left to it instead of being asked for,
// since each question would bring the file from its start again.  Thread-safe.
class FileStream {
 public:
  using WholeBody = RangeSink::WholeBody;

  // What to do with a whole body that came for `wanted`.
  WholeBody whole_body_came(ByteRange wanted) EXCLUDES(mutex_);
  // The server knows ranges.
  void range_came() EXCLUDES(mutex_);

  // Leaves `ordinals` to the stream.  False: there is none.
  bool join(const std::vector<uint64_t>& ordinals) EXCLUDES(mutex_);

  // Whether the stream is worth going on with when the file's first `position` bytes have come.
  // Ahead of it, and behind, are those who wait.
  bool goes_on(uint64_t position, bool is_wanted_ahead, bool is_wanted_behind) EXCLUDES(mutex_);

  // It is over; answers what was left to it, some of which may have come.
  std::vector<uint64_t> end() EXCLUDES(mutex_);

 private:
  Mutex mutex_;  // leaf lock
  bool is_running_ GUARDED_BY(mutex_) = false;
  unsigned ignored_in_a_row_ GUARDED_BY(mutex_) = 0;
  uint64_t wanted_until_ GUARDED_BY(mutex_) = 0;  // the furthest byte that somebody waited for
  std::vector<uint64_t> joined_ GUARDED_BY(mutex_);
};

}  // namespace cake
