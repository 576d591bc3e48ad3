#include "store/evict.h"

#include <algorithm>
#include <utility>

#include "store/base/log.h"
#include "store/evict_policy.h"
#include "store/unnamed.h"

namespace cake {

namespace {

// A writer waits so long for another process that makes room; then its chunks are not stored.
constexpr Millis kLockPatience{20'000};
// Nothing to evict: looked at again after this.
constexpr Millis kFullMemory{3'000};
// What other processes have written is published after their group's delay of 1 s.
constexpr Millis kOthersPublishIn{2'000};
constexpr Millis kLookAgain{200};
constexpr Millis kWritePeriod{5'000};
// Parts of the limit: evicted at once, and room below which the upkeep thread begins.
constexpr uint64_t kBatchShare = 40;
constexpr uint64_t kAheadShare = 80;
// Taken ahead by the writer of a pack that is shorter.
constexpr uint64_t kFirstStep = 2 * kMiB;
// Rows dropped and punched together: bounds memory, and how long their bytes lie about.
constexpr size_t kRemoveRows = 20'000;
// Between two of these the disk is the readers' for so many times as long as the first took, but
// who waits for room does not wait for more than the sum (tests/bench/eviction_time_bench).
constexpr int kRestFactor = 3;
constexpr Millis kMaxRests{5'000};

// Blocks of packs that rows do not account for: looked for beyond so much.
constexpr uint64_t kUnnamedShare = 100;
constexpr uint64_t kMaxUnnamed = 64 * kMiB;

std::string packs_of(const Space& space) {
  return space.directory() + "/packs";
}

int64_t nanoseconds(SteadyTime time) {
  return std::chrono::nanoseconds(time.time_since_epoch()).count();
}

}  // namespace

Evictor::Evictor(Space space, Index& index, IndexUpkeep& upkeep, AccessLog& log, Metrics& metrics)
    : space_(std::move(space)),
      index_(index),
      upkeep_(upkeep),
      log_(log),
      chunks_evicted_(metrics.counter("store.chunks_evicted")),
      bytes_evicted_(metrics.counter("store.bytes_evicted")),
      reclaimer_(space_.directory(), index, upkeep),
      thread_(std::make_unique<ThreadPool>("cake-upkeep", 1)) {
  thread_->post(ThreadPool::Priority::background, [this] { run(); });
}

Evictor::~Evictor() {
  stop();
}

void Evictor::stop() {
  {
    MutexLock lock(mutex_);
    stops_ = true;
  }
  wake_.notify_all();
  thread_.reset();
}

Result<uint64_t> Evictor::reserve(const PackWriter& pack, std::span<const NewEntry> entries,
                                  const std::function<void()>& publish) {
  if (!space_.is_limited()) return UINT64_MAX;
  if (nanoseconds(steady_now()) < full_until_) return at_limit();
  // A store that stays full is not waited for again and again.
  const SteadyTime patient_until =
      full_until_ == 0 ? steady_now() + kOthersPublishIn : SteadyTime::min();
  Result<uint64_t> reserved = try_reserve(pack, entries);
  if (!reserved && reserved.error().code == Errc::no_space) {
    publish();
    reserved = try_reserve(pack, entries);
  }
  while (!reserved && reserved.error().code == Errc::no_space && steady_now() < patient_until) {
    {
      MutexLock lock(mutex_);
      wake_.wait_until(mutex_, steady_now() + kLookAgain);
    }
    reserved = try_reserve(pack, entries);
  }
  const bool is_full = !reserved && reserved.error().code == Errc::no_space;
  full_until_ = is_full ? nanoseconds(steady_now() + kFullMemory) : 0;
  return reserved;
}

Error Evictor::at_limit() const {
  return {Errc::no_space,
          cat("store ", space_.directory(),
              " is at its limit (cache_size, min_free), and what it holds is pinned, open, or "
              "needed; raise cache_size, or unpin or remove something")};
}

Result<uint64_t> Evictor::try_reserve(const PackWriter& pack, std::span<const NewEntry> entries) {
  const File lock = CAKE_TRY(space_.lock(Deadline::after(kLockPatience)));
  const uint64_t end = pack.end();
  const uint64_t bytes = pack.end_after(entries) - end;
  int64_t room = CAKE_TRY(space_.room());
  const auto wanted = static_cast<int64_t>(bytes);
  if (room < wanted) {
    CAKE_TRY(evict_locked(static_cast<uint64_t>(wanted - room), true));
    room = CAKE_TRY(space_.room());
  }
  if (room < wanted) return at_limit();
  // As much as the pack has, so that a small store does not look like a large one.
  const uint64_t step = std::min(space_.step_bytes(), std::max(end, kFirstStep));
  const uint64_t take = std::min(std::max(bytes, step), static_cast<uint64_t>(room));
  // The disk may be full although the limits say no: then what was taken in part is given back.
  if (const auto taken = pack.file().preallocate({end, take}); !taken) {
    CAKE_TRY(release(pack.file(), end));
    return taken.error();
  }
  if (static_cast<uint64_t>(room) - take < space_.limits().cache_bytes / kAheadShare) {
    MutexLock guard(mutex_);
    is_room_short_ = true;
    wake_.notify_all();
  }
  return end + take;
}

Result<bool> Evictor::reserve_free(const File& file, uint64_t bytes) {
  if (!space_.is_limited()) return true;
  const File lock = CAKE_TRY(space_.lock(Deadline::after(kLockPatience)));
  if (CAKE_TRY(space_.room()) < static_cast<int64_t>(bytes)) return false;
  CAKE_TRY(file.preallocate({0, bytes}));
  return true;
}

void Evictor::set_whole_files(std::shared_ptr<WholeFiles> files) {
  MutexLock lock(mutex_);
  whole_files_ = std::move(files);
}

std::shared_ptr<WholeFiles> Evictor::whole_files() {
  MutexLock lock(mutex_);
  return whole_files_;
}

Result<Reclaimer::Gone> Evictor::evict(uint64_t bytes) {
  const File lock = CAKE_TRY(space_.lock(Deadline::after(kLockPatience)));
  return evict_locked(bytes, false);
}

// Probation's share by now: ghosts whose chunks came back have spoken, and go.
Result<double> Evictor::learn_share() {
  const double share = CAKE_TRY(upkeep_.probation_share(kFirstShare));
  const std::vector<IndexUpkeep::Ghost> ghosts = CAKE_TRY(upkeep_.ghosts());
  if (ghosts.empty()) return share;
  GhostCounts counts;
  for (const IndexUpkeep::Ghost& ghost : ghosts)
    (ghost.is_proven ? counts.proven : counts.probation)++;
  std::vector<uint64_t> back;
  uint64_t chunks = 0;
  CAKE_TRY(upkeep_.each_chunk([&](const ChunkRow& row) -> Status {
    chunks++;
    const IndexUpkeep::Ghost wanted{digest_key(row.digest)};
    const auto found = std::lower_bound(ghosts.begin(), ghosts.end(), wanted);
    if (found == ghosts.end() || found->key != wanted.key) return {};
    back.push_back(found->key);
    (found->is_proven ? counts.proven_back : counts.probation_back)++;
    return {};
  }));
  if (back.empty()) return share;
  CAKE_TRY(upkeep_.drop_ghosts(back));
  const double now = adapted_share(share, counts, chunks);
  CAKE_TRY(upkeep_.set_probation_share(now));
  return now;
}

Result<uint64_t> Evictor::give_back_unnamed() {
  const File lock = CAKE_TRY(space_.lock(Deadline::after(kLockPatience)));
  return punch_unnamed(packs_of(space_), index_, upkeep_, UINT64_MAX);
}

// Looks at the packs only when they take well more than their rows say.
Result<uint64_t> Evictor::give_back_unnamed_locked(uint64_t named_bytes, uint64_t bytes) {
  const std::string packs = packs_of(space_);
  const uint64_t blocks = CAKE_TRY(entry_pack_blocks(packs));
  const uint64_t unnamed = blocks - std::min(blocks, named_bytes);
  const uint64_t tolerated = std::min(space_.limits().cache_bytes / kUnnamedShare, kMaxUnnamed);
  if (unnamed < unnamed_left_) unnamed_left_ = unnamed;
  if (unnamed <= unnamed_left_ + tolerated) return uint64_t{0};
  const uint64_t wanted = std::max(bytes, kMaxUnnamed);
  const uint64_t freed = CAKE_TRY(punch_unnamed(packs, index_, upkeep_, wanted));
  if (freed < wanted) unnamed_left_ = unnamed - std::min(unnamed, freed);
  log_debug(cat("gave ", format_size(freed), " back that no row named"));
  return freed;
}

// Answers how long it was.
SteadyTime::duration Evictor::rest(SteadyTime::duration at_most) {
  const SteadyTime start = steady_now();
  MutexLock lock(mutex_);
  while (!stops_)
    if (!wake_.wait_until(mutex_, start + at_most)) break;
  return steady_now() - start;
}

// `is_batch`: as much more as is worth a look at all rows.
Result<Reclaimer::Gone> Evictor::evict_locked(uint64_t bytes, bool is_batch) {
  CAKE_TRY(write_accesses());
  Reclaimer::Gone sum;
  const Reclaimer::Kept kept = CAKE_TRY(reclaimer_.kept());
  const int64_t now = unix_now();
  const double share = CAKE_TRY(learn_share());
  EvictionPlan plan(now, share);
  const std::vector<uint32_t> whole_packs = CAKE_TRY(upkeep_.whole_packs());
  const auto may_go = [&](const ChunkRow& row) {
    return !kept.has(row.digest) &&
           !std::binary_search(whole_packs.begin(), whole_packs.end(), row.location.pack);
  };
  // Read again, or they would not have become what they are.
  constexpr unsigned kFileUses = 1;
  const std::shared_ptr<WholeFiles> whole = whole_packs.empty() ? nullptr : whole_files();
  std::vector<WholeFiles::Entry> files;
  if (whole != nullptr) files = CAKE_TRY(whole->list_evictable(kept.keys));
  for (const WholeFiles::Entry& file : files) plan.count(kFileUses, file.last_access, file.bytes);
  uint64_t rows = 0, named_bytes = 0;
  const auto count_chunks = [&]() -> Status {
    rows = named_bytes = 0;
    return upkeep_.each_chunk([&](const ChunkRow& row) -> Status {
      rows++;
      if (!std::binary_search(whole_packs.begin(), whole_packs.end(), row.location.pack))
        named_bytes += Reclaimer::disk_bytes(row.location);
      if (may_go(row)) plan.count(row.uses, row.last_access, Reclaimer::disk_bytes(row.location));
      return {};
    });
  };
  CAKE_TRY(count_chunks());
  // What is nobody's goes first.
  sum.bytes = CAKE_TRY(give_back_unnamed_locked(named_bytes, bytes));
  if (sum.bytes >= bytes || plan.counted_bytes() == 0) return sum;
  bytes -= sum.bytes;
  const uint64_t batch = std::min(space_.limits().cache_bytes, plan.counted_bytes()) / kBatchShare;
  const uint64_t wanted = is_batch ? std::max(bytes, batch) : bytes;
  plan.decide(wanted);

  std::vector<ChunkRow> victims;
  SteadyTime::duration rests_left = kMaxRests;
  const auto remove_some = [&]() -> Status {
    const Reclaimer::Gone gone = CAKE_TRY(reclaimer_.remove(victims, kept, true));
    sum.chunks += gone.chunks;
    sum.bytes += gone.bytes;
    victims.clear();
    return {};
  };
  uint64_t whole_bytes = 0;
  bool has_stayed = false;
  for (const WholeFiles::Entry& file : files) {
    if (!plan.takes(kFileUses, file.last_access, file.bytes)) continue;
    const uint64_t freed = whole->evict(file.content);
    whole_bytes += freed;
    has_stayed |= freed == 0;
  }
  sum.bytes += whole_bytes;
  // In use, needed, or damaged: chunks go in its place, or nothing would.
  if (has_stayed && whole_bytes < wanted) {
    plan = EvictionPlan(now, share);
    CAKE_TRY(count_chunks());
    plan.decide(wanted - whole_bytes);
  }
  const auto remove_some_and_rest = [&]() -> Status {
    const SteadyTime start = steady_now();
    CAKE_TRY(remove_some());
    rests_left -= rest(std::min(rests_left, (steady_now() - start) * kRestFactor));
    return {};
  };
  CAKE_TRY(upkeep_.each_chunk([&](const ChunkRow& row) -> Status {
    if (!may_go(row)) return {};
    if (!plan.takes(row.uses, row.last_access, Reclaimer::disk_bytes(row.location))) return {};
    victims.push_back(row);
    return victims.size() < kRemoveRows ? Status() : remove_some_and_rest();
  }));
  CAKE_TRY(remove_some());
  CAKE_TRY(upkeep_.trim_ghosts(rows));
  chunks_evicted_.add(sum.chunks);
  bytes_evicted_.add(sum.bytes);
  log_debug(cat("evicted ", sum.chunks, " of ", rows, " chunks, ", format_size(sum.bytes)));
  return sum;
}

Status Evictor::write_accesses() {
  AccessLog::Notes notes = log_.take();
  if (notes.is_empty()) return {};
  const int64_t now = unix_now();
  CAKE_TRY(upkeep_.touch_contents(notes.contents, now));
  return upkeep_.touch_chunks(notes.chunks, now);
}

void Evictor::run() {
  SteadyTime next_log{};
  while (true) {
    bool is_short = false, stops = false;
    {
      MutexLock lock(mutex_);
      const SteadyTime until = steady_now() + kWritePeriod;
      while (!stops_ && !is_room_short_)
        if (!wake_.wait_until(mutex_, until)) break;
      is_short = std::exchange(is_room_short_, false);
      stops = stops_;
    }
    Status done = write_accesses();
    if (done && is_short && !stops) done = make_room_ahead();
    if (const std::shared_ptr<WholeFiles> whole = whole_files()) whole->close_removed();
    if (!done && steady_now() >= next_log) {
      next_log = steady_now() + Millis(60'000);
      log_warn(done.error().with("upkeep of " + space_.directory()).message);
    }
    if (stops) return;
  }
}

Status Evictor::make_room_ahead() {
  const File lock = CAKE_TRY(space_.lock(Deadline::after(kLockPatience)));
  const int64_t room = CAKE_TRY(space_.room());
  const auto wanted =
      static_cast<int64_t>(std::min(space_.limits().cache_bytes, uint64_t{1} << 40) / kAheadShare);
  // Another process was faster.
  if (room >= wanted) return {};
  CAKE_TRY(evict_locked(static_cast<uint64_t>(wanted - room), true));
  return {};
}

}  // namespace cake
