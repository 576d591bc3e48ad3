// Keeps the store in its limits: takes disk space for writers, and gives it back to the disk.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/access_log.h"
#include "store/base/metrics.h"
#include "store/base/thread_pool.h"
#include "store/index_upkeep.h"
#include "store/pack.h"
#include "store/space.h"
#include "store/whole_files.h"

namespace cake {

// Removes rows, then gives the bytes behind them back to the disk.  Rows go first and durably; then
// leases and pins are read again, and what was opened or pinned meanwhile gets its rows back.
// Thread-safe.
class Reclaimer {
 public:
  Reclaimer(std::string directory, Index& index, IndexUpkeep& upkeep)
      : directory_(std::move(directory)), index_(index), upkeep_(upkeep) {}

  // Contents that nothing may be taken from now: open in some process of the store, or pinned.
  struct Kept {
    std::vector<RowId> contents;  // sorted
    std::vector<uint64_t> keys;   // digest_key of their extents, sorted
    bool has(const Digest& digest) const;
  };
  // `pins`: whether the pinned count too.
  Result<Kept> kept(bool pins = true);

  struct Gone {
    uint64_t chunks = 0;
    uint64_t bytes = 0;  // that the disk got back, as the blocks of the packs tell
  };
  Result<Gone> remove(std::span<const ChunkRow> rows, const Kept& kept, bool remember);
  // Blocks that a chunk occupies alone, or shares with its neighbours when it is small.
  static uint64_t disk_bytes(const Location& location);

 private:
  const std::string directory_;
  Index& index_;
  IndexUpkeep& upkeep_;
};

// Thread-safe.  Has a thread of its own that writes down what was read, and makes room before a
// writer has to wait for it.
class Evictor {
 public:
  Evictor(Space space, Index& index, IndexUpkeep& upkeep, AccessLog& log, Metrics& metrics);
  ~Evictor();
  // Ends the thread, which uses the whole files and through them the chunk store: called before
  // that goes.
  void stop() EXCLUDES(mutex_);

  bool is_limited() const { return space_.is_limited(); }
  const Space& space() const { return space_; }
  Reclaimer& reclaimer() { return reclaimer_; }

  // Before a writer appends `entries`: takes blocks for these and the next ones, evicting if need
  // be, and answers up to which offset it may write.  What has no rows yet cannot be evicted:
  // `publish` gives the writer's own their rows, for which it may append records; those of other
  // processes are waited for, a group's delay.  no_space: the limits are reached and all is pinned
  // or open, or the disk is full.
  Result<uint64_t> reserve(const PackWriter& pack, std::span<const NewEntry> entries,
                           const std::function<void()>& publish) EXCLUDES(mutex_);
  // Takes blocks for a file of its own, if there is room for it now: nothing is evicted.
  Result<bool> reserve_free(const File& file, uint64_t bytes);
  // Gives back what lies behind `end`.
  static Status release(const File& pack, uint64_t end) { return pack.truncate(end); }

  // Evicts so much, if there is so much.  Takes the space lock.
  Result<Reclaimer::Gone> evict(uint64_t bytes);
  // Punches all entries that no row names.  Takes the space lock.  Answers the bytes that the disk
  // got back.
  Result<uint64_t> give_back_unnamed();
  // Writes down what was read.
  Status write_accesses();

  // From now on whole files are evicted too, as if they were one chunk each.
  void set_whole_files(std::shared_ptr<WholeFiles> files) EXCLUDES(mutex_);
  // nullptr: none were set.
  std::shared_ptr<WholeFiles> whole_files() EXCLUDES(mutex_);

 private:
  Error at_limit() const;
  Result<uint64_t> try_reserve(const PackWriter& pack, std::span<const NewEntry> entries);
  Result<Reclaimer::Gone> evict_locked(uint64_t bytes, bool is_batch);
  SteadyTime::duration rest(SteadyTime::duration at_most) EXCLUDES(mutex_);
  Result<uint64_t> give_back_unnamed_locked(uint64_t named_bytes, uint64_t bytes);
  Result<double> learn_share();
  void run() EXCLUDES(mutex_);
  Status make_room_ahead();

  const Space space_;
  Index& index_;
  IndexUpkeep& upkeep_;
  AccessLog& log_;
  Counter &chunks_evicted_, &bytes_evicted_;
  Reclaimer reclaimer_;

  // Until then nothing could be evicted: no use in looking again for every write.  0: there was
  // room when it was last asked for.
  std::atomic<int64_t> full_until_{0};  // steady clock, ns
  // Blocks that rows do not account for and that no look at all packs could free: records, what
  // small neighbours share, what is being written.
  std::atomic<uint64_t> unnamed_left_{0};

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  CondVar wake_;
  bool is_room_short_ GUARDED_BY(mutex_) = false;
  bool stops_ GUARDED_BY(mutex_) = false;
  std::shared_ptr<WholeFiles> whole_files_ GUARDED_BY(mutex_);

  std::unique_ptr<ThreadPool> thread_;  // last: uses all of the above
};

}  // namespace cake
