// Puts between hashing and publication: equal ones become one, and each ends here.
#pragma once

#include <atomic>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "store/base/metrics.h"
#include "store/base/mutex.h"
#include "store/put_queue.h"

namespace cake {

// Ending a put lets go of its memory, calls its `done`, and tells the queue.  Thread-safe.
class PendingPuts {
 public:
  PendingPuts(PutQueue& queue, Metrics& metrics);

  // Counts its bytes as queued until it ends.
  void begin(const PutJob& job) { queued_bytes_ += job.plain_bytes; }
  uint64_t queued_bytes() const { return queued_bytes_.load(std::memory_order_relaxed); }

  // True: the first with this digest, which brings the bytes and is ended by one of the calls
  // below.  False: it ends as that one's duplicate, now or when its place is known.
  bool join(const PutJobPtr& job) EXCLUDES(mutex_);

  // The first of a digest ends, and those who wait for it:
  // its bytes are in the pack.  Equal puts find it here until `forget`.
  void end_written(const PutItem& item, const Location& location) EXCLUDES(mutex_);
  // a row was there already,
  void end_found(const PutJobPtr& job, const Location& location) EXCLUDES(mutex_);
  // or it is only in memory.
  void end_failed(const PutJobPtr& job, const Error& error) EXCLUDES(mutex_);

  // Chunks whose group was published, or given up.
  void forget(std::span<const PublishedExtent> extents) EXCLUDES(mutex_);
  // Counts chunks that were written and are not durable.
  void count_lost(std::span<const PublishedExtent> extents);
  // What keeps chunks from being stored; logged once a minute.
  void log_failure(const Error& error) EXCLUDES(mutex_);

 private:
  std::vector<PutJobPtr> take_waiters(const Digest& digest, const std::optional<Location>& location)
      EXCLUDES(mutex_);
  void add_deduped(const PutJobPtr& job, const Location& location);
  void fail(const PutJobPtr& job, const Error& error);

  // Constant after construction.
  PutQueue& queue_;  // synchronises itself
  Counter &stored_, &deduplicated_, &bytes_deduplicated_, &unstored_, &plain_written_,
      &encoded_written_;

  std::atomic<uint64_t> queued_bytes_{0};

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  // Where a chunk is, or who waits to hear.
  struct Pending {
    std::optional<Location> location;
    std::vector<PutJobPtr> waiters;
  };
  std::unordered_map<Digest, Pending, DigestHash> pending_ GUARDED_BY(mutex_);
  SteadyTime next_log_ GUARDED_BY(mutex_);
};

}  // namespace cake
