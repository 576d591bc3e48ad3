// Brings missing extents from the upstream: claims, ranges, retries.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "fetch/chunk_cache.h"
#include "fetch/flow.h"
#include "fetch/health.h"
#include "fetch/plan.h"
#include "fetch/readahead_options.h"
#include "fetch/upstream.h"
#include "store/base/metrics.h"
#include "store/base/mutex.h"
#include "store/store.h"

namespace cake {

class FileReader;
class RangeFetch;

struct FetchOptions {
  // Hard, as NFS means it: a network fault makes a read wait and retry for ever.  Soft: an error
  // after `retrans` retries, of which each takes `timeo` at most.
  bool is_hard = true;
  Millis timeo{60'000};
  unsigned retrans = 5;
  // Off: an attempt lasts for as long as bytes come.
  bool limits_attempts = true;
  Deadline attempt_deadline() const {
    return is_hard || !limits_attempts ? Deadline::never() : Deadline::after(timeo);
  }
  // Ranges at a time while readahead is among them; demand goes beyond.
  unsigned max_transfers = 48;
  // Off where whoever asked is told of a failure and says it: a command.
  bool logs_failures = true;
  ReadaheadOptions readahead;
};

// What all files of a process share for reading: store, upstream, memory, claims.
// Thread-safe.
class Fetcher : public std::enable_shared_from_this<Fetcher> {
 public:
  // `upstream` may be null (offline=yes).  Store and upstream outlive stop().
  Fetcher(Store& store, Upstream* upstream, FetchOptions options, Metrics& metrics);

  // After this no new request starts, and nothing of the fetcher's runs on a pool thread.  Waiters
  // of requests under way are answered when the upstream ends them.
  void stop() EXCLUDES(mutex_);

  // Fetches extents of `reader` that have a flight there, in rising order.  Never waits for the
  // network.  Every ordinal comes back through FileReader::arrived or FileReader::range_ended.
  void start(const std::shared_ptr<FileReader>& reader, std::vector<uint64_t> ordinals,
             bool is_demand);
  // The same after a delay; for retries.
  void start_after(Millis delay, const std::shared_ptr<FileReader>& reader,
                   std::vector<uint64_t> ordinals);

  // Somebody waits now for extents that were asked for ahead: if they are still queued, they go.
  void hurry(const FileReader& reader, const std::vector<uint64_t>& ordinals) EXCLUDES(mutex_);

  // Runs on the store's pool.  False once stopping: dropped, and whoever waits for it must hear.
  bool post(ThreadPool::Priority priority, std::function<void()> task) EXCLUDES(mutex_);

  // `turn` on the store's pool after `delay`; an error once stopping, which drops timers and tasks.
  void post_after(Millis delay, Done<std::monostate> turn);

  // How many bytes readahead may ask for now: memory, disk and outstanding requests considered.
  uint64_t readahead_limit() const;
  // The most that it can be.
  uint64_t max_readahead() const;

  Store& store() { return store_; }
  Upstream* upstream() { return is_stopping() ? nullptr : upstream_; }
  ChunkCache& cache() { return cache_; }
  UpstreamHealth& health() { return health_; }
  const FetchOptions& options() const { return options_; }
  bool is_stopping() const { return stopping_.load(std::memory_order_acquire); }
  // Bytes that a reader got and the store did not: they are fetched again some day.
  Counter& bytes_unstored() { return bytes_unstored_; }
  // Tells of such, because they came faster than the disk takes them, once a minute.
  void tell_slow_disk();
  Counter& extents_refetched() { return extents_refetched_; }
  // Read from the store for somebody who wants to read them, or soon will.
  Counter& chunks_read() { return chunks_read_; }

 private:
  friend class RangeFetch;
  struct RegionKey {
    RowId content;
    uint64_t region;
    auto operator<=>(const RegionKey&) const = default;  // NOLINT(modernize-use-nullptr)
  };
  struct Region {
    unsigned active = 0;      // ranges under way in it
    uint64_t uses = 0;        // ranges there ever were
    bool is_claimed = false;  // the OFD lock is ours
  };

  enum class Claim { held_before, taken, busy };
  Claim enter_region(RegionKey key) EXCLUDES(mutex_);
  void leave_region(RegionKey key) EXCLUDES(mutex_);
  void release_idle_regions() EXCLUDES(mutex_);
  // `start` on the pool after `delay`; the ranges end with cancelled when that is not to be.
  void start_later(Millis delay, const std::shared_ptr<FileReader>& reader,
                   std::vector<uint64_t> ordinals, std::function<void()> start);
  void start_region(const std::shared_ptr<FileReader>& reader, uint64_t region,
                    std::vector<uint64_t> ordinals, bool is_demand, SteadyTime waiting_since);
  void task_ended() EXCLUDES(mutex_);
  // Now, or for readahead when Flow lets it.
  void submit(const std::shared_ptr<RangeFetch>& range, bool is_demand) EXCLUDES(mutex_);
  // Counted by flow_ already.
  void send(const std::shared_ptr<RangeFetch>& range, bool is_demand);
  void range_over(const RangeFetch& over, Flow::End end) EXCLUDES(mutex_);
  void note_bytes(uint64_t bytes) EXCLUDES(mutex_);

  // Constant after construction.
  Store& store_;
  Upstream* const upstream_;
  const FetchOptions options_;
  ChunkCache cache_;
  UpstreamHealth health_;
  Counter& bytes_unstored_;
  std::atomic<int64_t> slow_disk_told_at_{INT64_MIN / 2};  // Unix seconds
  Counter& extents_refetched_;
  Counter& chunks_read_;
  Counter& ranges_requested_;

  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> background_bytes_{0};  // asked for ahead, not yet arrived

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  CondVar idle_;
  unsigned tasks_ GUARDED_BY(mutex_) = 0;
  Flow flow_ GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<RangeFetch>> queue_ GUARDED_BY(mutex_);  // readahead that waits
  std::map<RegionKey, Region> regions_ GUARDED_BY(mutex_);
  bool release_is_due_ GUARDED_BY(mutex_) = false;
};

}  // namespace cake
