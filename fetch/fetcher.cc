#include "fetch/fetcher.h"

#include <algorithm>

#include "fetch/file_reader.h"
#include "fetch/once_done.h"
#include "fetch/range_fetch.h"
#include "store/base/log.h"

namespace cake {

namespace {

// How soon another process's claim is looked at again, and how long it is respected: its holder may
// be stuck where we are not.
constexpr Millis kClaimPoll{25};
constexpr Millis kClaimPatience{30'000};
// Claims are given back when their bytes are published; so many a second are worth a sync.
constexpr Millis kReleaseDelay{700};

}  // namespace

Fetcher::Fetcher(Store& store, Upstream* upstream, FetchOptions options, Metrics& metrics)
    : store_(store),
      upstream_(upstream),
      options_(options),
      cache_(store.budget()),
      bytes_unstored_(metrics.counter("fetch.bytes_unstored")),
      extents_refetched_(metrics.counter("fetch.extents_refetched")),
      chunks_read_(metrics.counter("fetch.chunks_read")),
      ranges_requested_(metrics.counter("fetch.ranges_requested")),
      flow_({.max_transfers = options.max_transfers, .max_outstanding_bytes = max_readahead()}) {}

void Fetcher::stop() {
  stopping_.store(true, std::memory_order_release);
  std::deque<std::shared_ptr<RangeFetch>> queued;
  {
    MutexLock lock(mutex_);
    queued.swap(queue_);
  }
  for (const auto& range : queued) range->on_end(Error{Errc::cancelled, "unmounting"});
  MutexLock lock(mutex_);
  while (tasks_ != 0) idle_.wait(mutex_);
}

// --- which ranges, and when ---

void Fetcher::submit(const std::shared_ptr<RangeFetch>& range, bool is_demand) {
  bool is_queued = false;
  {
    MutexLock lock(mutex_);
    if (!is_demand && !is_stopping() && flow_.active() >= flow_.transfers()) {
      flow_.refused();
      queue_.push_back(range);
      is_queued = true;
    } else {
      flow_.started();
    }
  }
  if (!is_queued) return send(range, is_demand);
  // Who came to wait before it was in the queue could not hurry it.
  const std::vector<uint64_t> awaited = range->reader().awaited(range->range());
  if (!awaited.empty()) hurry(range->reader(), awaited);
}

void Fetcher::send(const std::shared_ptr<RangeFetch>& range, bool is_demand) {
  const FileAddress& address = range->begin();
  Upstream* const target = upstream();
  if (target == nullptr) return range->on_end(Error{Errc::cancelled, "unmounting"});
  target->read(address, range->range().bytes, is_demand, options_.attempt_deadline(), range);
}

void Fetcher::hurry(const FileReader& reader, const std::vector<uint64_t>& ordinals) {
  std::vector<std::shared_ptr<RangeFetch>> now;
  {
    MutexLock lock(mutex_);
    const auto is_wanted = [&](const std::shared_ptr<RangeFetch>& range) {
      if (&range->reader() != &reader) return false;
      const PlannedRange& part = range->range();
      return std::any_of(ordinals.begin(), ordinals.end(), [&](uint64_t ordinal) {
        return ordinal >= part.first && ordinal < part.first + part.count;
      });
    };
    std::erase_if(queue_, [&](const std::shared_ptr<RangeFetch>& range) {
      if (!is_wanted(range)) return false;
      now.push_back(range);
      return true;
    });
    for (size_t i = 0; i < now.size(); i++) flow_.started();
  }
  for (const auto& range : now) send(range, true);
}

void Fetcher::range_over(const RangeFetch& over, Flow::End end) {
  std::vector<std::shared_ptr<RangeFetch>> next;
  {
    MutexLock lock(mutex_);
    if (end == Flow::End::whole) {
      const auto [first_byte, body] = over.times();
      flow_.measured(first_byte, body, over.range().bytes.length);
    }
    flow_.ended(end, steady_now());
    while (!queue_.empty() && flow_.active() < flow_.transfers()) {
      flow_.started();
      next.push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    if (!queue_.empty()) flow_.refused();
  }
  for (const auto& range : next) send(range, false);
}

void Fetcher::note_bytes(uint64_t bytes) {
  MutexLock lock(mutex_);
  flow_.received(bytes, steady_now());
}

bool Fetcher::post(ThreadPool::Priority priority, std::function<void()> task) {
  {
    MutexLock lock(mutex_);
    if (is_stopping()) return false;
    tasks_++;
  }
  store_.pool().post(priority, [self = shared_from_this(), task = std::move(task)] {
    task();
    self->task_ended();
  });
  return true;
}

void Fetcher::task_ended() {
  MutexLock lock(mutex_);
  if (--tasks_ == 0) idle_.notify_all();
}

uint64_t Fetcher::max_readahead() const {
  return std::min(options_.readahead.max_window_bytes, store_.budget().limit() / 2);
}

uint64_t Fetcher::readahead_limit() const {
  const uint64_t limit = store_.budget().limit();
  // A disk slower than the link slows readahead, never a demanded read: only so much is asked for
  // as can be queued for the disk when it comes.
  const uint64_t room = limit / 2 - std::min(limit / 2, store_.chunks().queued_bytes());
  const uint64_t outstanding = background_bytes_.load(std::memory_order_relaxed);
  const uint64_t most = std::min(options_.readahead.max_window_bytes, room);
  return outstanding < most ? most - outstanding : 0;
}

void Fetcher::start(const std::shared_ptr<FileReader>& reader, std::vector<uint64_t> ordinals,
                    bool is_demand) {
  size_t begin = 0;
  while (begin < ordinals.size()) {
    const uint64_t region = reader->extents().at(ordinals[begin]).offset / Claims::kRegionBytes;
    size_t end = begin + 1;
    while (end < ordinals.size() &&
           reader->extents().at(ordinals[end]).offset / Claims::kRegionBytes == region)
      end++;
    start_region(reader, region,
                 {ordinals.begin() + static_cast<ptrdiff_t>(begin),
                  ordinals.begin() + static_cast<ptrdiff_t>(end)},
                 is_demand, SteadyTime{});
    begin = end;
  }
}

void Fetcher::start_after(Millis delay, const std::shared_ptr<FileReader>& reader,
                          std::vector<uint64_t> ordinals) {
  // A stream may have brought them meanwhile.
  start_later(delay, reader, ordinals, [reader, ordinals] { reader->restart(ordinals); });
}

void Fetcher::start_later(Millis delay, const std::shared_ptr<FileReader>& reader,
                          std::vector<uint64_t> ordinals, std::function<void()> start) {
  post_after(delay, [reader, ordinals = std::move(ordinals),
                     start = std::move(start)](const Result<std::monostate>& has_come) {
    if (has_come)
      start();
    else
      reader->range_ended(ordinals, has_come.error());
  });
}

void Fetcher::post_after(Millis delay, Done<std::monostate> turn) {
  // Who drops the last copy of this tells it that nothing comes of it.
  const OnceDone<std::monostate> once(std::move(turn));
  Upstream* const target = upstream();
  if (target == nullptr) return;
  target->after(delay, [self = shared_from_this(), once] {
    self->post(ThreadPool::Priority::demand, [once] { once(std::monostate{}); });
  });
}

void Fetcher::start_region(const std::shared_ptr<FileReader>& reader, uint64_t region,
                           std::vector<uint64_t> ordinals, bool is_demand,
                           SteadyTime waiting_since) {
  if (upstream() == nullptr) {
    // What another process of the store has fetched meanwhile is there all the same.
    ordinals = reader->deliver_stored(ordinals);
    if (ordinals.empty()) return;
    reader->range_ended(ordinals,
                        is_stopping()
                            ? Error{Errc::cancelled, "unmounting"}
                            : Error{Errc::offline, "not in the store, and the mount is offline"});
    return;
  }
  if (reader->stream().join(ordinals)) return;
  const RegionKey key{reader->content().id, region};
  const Claim claim = enter_region(key);
  // Also where the claim was ours before: another process may have fetched this before that.
  ordinals = reader->deliver_stored(ordinals);
  const bool is_patient =
      waiting_since == SteadyTime{} || steady_now() - waiting_since < kClaimPatience;
  if (ordinals.empty()) {
    if (claim != Claim::busy) leave_region(key);
    return;
  }
  if (claim == Claim::busy && is_patient) {
    const SteadyTime since = waiting_since == SteadyTime{} ? steady_now() : waiting_since;
    start_later(kClaimPoll, reader, ordinals,
                [self = shared_from_this(), reader, region, ordinals, is_demand, since] {
                  self->start_region(reader, region, ordinals, is_demand, since);
                });
    return;
  }

  uint64_t wanted_bytes = 0, range_bytes = 0;
  for (const uint64_t ordinal : ordinals) wanted_bytes += reader->extents().at(ordinal).length;
  {
    MutexLock lock(mutex_);
    range_bytes = flow_.range_bytes(wanted_bytes, queue_.size());
  }
  const std::vector<PlannedRange> ranges =
      plan_ranges(reader->extents(), ordinals, range_bytes, Claims::kRegionBytes);
  // Each range leaves the region once; it was entered once, or not at all when impatient.
  for (size_t i = claim == Claim::busy ? 0 : 1; i < ranges.size(); i++) {
    MutexLock lock(mutex_);
    Region& held = regions_[key];
    held.active++;
    held.uses++;
  }
  for (const PlannedRange& range : ranges) {
    ranges_requested_.add();
    submit(std::make_shared<RangeFetch>(shared_from_this(), reader, range, key, is_demand),
           is_demand);
  }
}

Fetcher::Claim Fetcher::enter_region(RegionKey key) {
  {
    MutexLock lock(mutex_);
    Region& region = regions_[key];
    region.active++;
    region.uses++;
    if (region.is_claimed) return Claim::held_before;
  }
  const Result<bool> taken = store_.claims().try_claim(key.content, key.region);
  // A claim saves work; without working locks every process fetches for itself.
  if (!taken) log_warn(taken.error().with("claiming a region").message);
  MutexLock lock(mutex_);
  Region& region = regions_[key];
  if (!taken || *taken) {
    region.is_claimed = true;
    return Claim::taken;
  }
  if (--region.active == 0) regions_.erase(key);
  return Claim::busy;
}

void Fetcher::leave_region(RegionKey key) {
  bool is_first = false;
  {
    MutexLock lock(mutex_);
    const auto found = regions_.find(key);
    if (found == regions_.end() || --found->second.active != 0) return;
    if (!found->second.is_claimed) {
      regions_.erase(found);
      return;
    }
    is_first = !std::exchange(release_is_due_, true);
  }
  Upstream* const target = upstream();
  if (is_first && target != nullptr)
    target->after(kReleaseDelay, [self = shared_from_this()] {
      self->post(ThreadPool::Priority::background, [self] { self->release_idle_regions(); });
    });
}

void Fetcher::tell_slow_disk() {
  constexpr int64_t kEvery = 60;
  const int64_t now = unix_now();
  int64_t last = slow_disk_told_at_.load();
  if (now - last < kEvery || !slow_disk_told_at_.compare_exchange_strong(last, now)) return;
  log_warn(cat("the disk of ", store_.directory(),
               " does not keep up: not all that is read is stored, and will be fetched again; a "
               "larger mem_cache bridges more"));
}

void Fetcher::release_idle_regions() {
  std::vector<std::pair<RegionKey, uint64_t>> idle;
  {
    MutexLock lock(mutex_);
    release_is_due_ = false;
    for (const auto& [key, region] : regions_)
      if (region.active == 0) idle.emplace_back(key, region.uses);
  }
  // Whoever waits for a claim looks for rows: publish first.
  store_.chunks().flush_async([self = shared_from_this(), idle = std::move(idle)](Status status) {
    if (!status.ok()) log_warn(status.error().with("publishing fetched chunks").message);
    for (const auto& [key, uses] : idle) {
      // Under the lock, or a range that enters now would believe in a claim that we give up.
      MutexLock lock(self->mutex_);
      const auto found = self->regions_.find(key);
      // What came meanwhile is not published yet: its own end has seen to a release.
      if (found == self->regions_.end() || found->second.active != 0) continue;
      if (found->second.uses != uses) continue;
      self->regions_.erase(found);
      const Status released = self->store_.claims().release(key.content, key.region);
      if (!released.ok()) log_warn(released.error().with("releasing a claim").message);
    }
  });
}

}  // namespace cake
