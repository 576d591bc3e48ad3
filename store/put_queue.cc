#include "store/put_queue.h"

#include <utility>

namespace cake {

namespace {

// Appended extents that the index refuses (disk full) are kept and tried again; beyond these, puts
// fail instead of taking ever more memory.
constexpr size_t kMaxUnpublished = 65'536;
constexpr Millis kRetryDelay{1000};
// Disk space that was taken and not used is given back after so much quiet.
constexpr Millis kQuiet{1000};

// None of what the flusher waits for is in `waiting`.
bool has_passed(const PutQueue::Flusher& flusher, const std::set<uint64_t>& waiting) {
  return waiting.empty() || *waiting.begin() >= flusher.target;
}

}  // namespace

// --- Anyone ---

uint64_t PutQueue::take_number() {
  const uint64_t sequence = next_sequence_++;
  unwritten_.insert(sequence);
  unpublished_.insert(sequence);
  return sequence;
}

uint64_t PutQueue::announce() {
  MutexLock lock(mutex_);
  return take_number();
}

void PutQueue::submit(PutItem item) {
  {
    MutexLock lock(mutex_);
    items_bytes_ += item.payload().size();
    items_.push_back(std::move(item));
  }
  writer_wake_.notify_one();
}

void PutQueue::submit_new(PutItem item) {
  {
    MutexLock lock(mutex_);
    item.sequence = take_number();
    items_bytes_ += item.payload().size();
    items_.push_back(std::move(item));
  }
  writer_wake_.notify_one();
}

void PutQueue::withdraw(uint64_t sequence) {
  {
    MutexLock lock(mutex_);
    unwritten_.erase(sequence);
    unpublished_.erase(sequence);
  }
  writer_wake_.notify_one();
  committer_wake_.notify_one();
}

void PutQueue::add_to_group(Addition addition) {
  {
    MutexLock lock(mutex_);
    if (open_.sequences.empty()) open_.since = steady_now();
    open_.sequences.push_back(addition.sequence);
    unwritten_.erase(addition.sequence);
    open_.bytes += addition.bytes;
    if (addition.extent) open_.extents.push_back(*addition.extent);
    if (addition.deduped && !addition.content.is_zero())
      open_.deduped[addition.content].push_back(*addition.deduped);
    if (addition.unencoded) open_.unencoded.push_back(*addition.unencoded);
  }
  writer_wake_.notify_one();
}

size_t PutQueue::waiting_items() const {
  MutexLock lock(mutex_);
  return items_.size();
}

bool PutQueue::is_choked() const {
  MutexLock lock(mutex_);
  return closed_extents_ > kMaxUnpublished;
}

void PutQueue::flush(std::function<void(Status)> done) {
  {
    MutexLock lock(mutex_);
    flushers_.push_back({next_sequence_, std::move(done)});
  }
  writer_wake_.notify_one();
  committer_wake_.notify_one();
}

void PutQueue::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  writer_wake_.notify_all();
  committer_wake_.notify_all();
}

// --- The writer ---

bool PutQueue::must_close() const {
  if (open_.is_empty()) return false;
  if (open_.bytes >= ChunkStore::kGroupBytes) return true;
  if (steady_now() >= open_.since + ChunkStore::kGroupDelay) return true;
  if (stopping_ && items_.empty()) return true;
  for (const Flusher& flusher : flushers_)
    if (has_passed(flusher, unwritten_)) return true;
  return false;
}

PutQueue::Work PutQueue::wait_for_work(bool has_room) {
  Work work;
  const SteadyTime quiet_at = steady_now() + kQuiet;
  MutexLock lock(mutex_);
  while (items_.empty() && !must_close() && !stopping_) {
    if (!open_.is_empty()) {
      writer_wake_.wait_until(mutex_, open_.since + ChunkStore::kGroupDelay);
    } else if (!has_room) {
      writer_wake_.wait(mutex_);
    } else if (!writer_wake_.wait_until(mutex_, quiet_at)) {
      work.quiet = true;
      return work;
    }
  }
  if (must_close()) work.close = std::exchange(open_, PutGroup());
  uint64_t bytes = 0;
  while (!items_.empty() && bytes < kBatchBytes && work.items.size() < kBatchEntries) {
    bytes += items_.front().payload().size();
    work.items.push_back(std::move(items_.front()));
    items_.pop_front();
  }
  items_bytes_ -= bytes;
  work.still_waiting_bytes = items_bytes_;
  work.all_settled = groups_settled_ == groups_closed_;
  work.stop = stopping_ && work.items.empty() && !work.close;
  return work;
}

PutGroup PutQueue::take_open() {
  MutexLock lock(mutex_);
  return std::exchange(open_, PutGroup());
}

void PutQueue::close(PutGroup group) {
  {
    MutexLock lock(mutex_);
    closed_extents_ += group.extents.size();
    groups_closed_++;
    closed_.push_back(std::move(group));
  }
  committer_wake_.notify_one();
}

bool PutQueue::is_condemned(uint32_t pack) const {
  MutexLock lock(mutex_);
  return condemned_.contains(pack);
}

void PutQueue::wait_until_settled(SteadyTime deadline) {
  MutexLock lock(mutex_);
  while (groups_settled_ < groups_closed_)
    if (!settled_.wait_until(mutex_, deadline)) break;
}

// --- The committer ---

std::vector<PutQueue::Flusher> PutQueue::take_flushers(bool all) {
  MutexLock lock(mutex_);
  std::vector<Flusher> ready, others;
  for (Flusher& flusher : flushers_)
    (all || has_passed(flusher, unpublished_) ? ready : others).push_back(std::move(flusher));
  flushers_ = std::move(others);
  return ready;
}

// There is something for the committer to do.
bool PutQueue::can_commit() const {
  for (const Flusher& flusher : flushers_)
    if (has_passed(flusher, unpublished_)) return true;
  // A flush does not wait for the next try: it is told how this one goes.
  const bool may_try = steady_now() >= retry_at_ || !flushers_.empty();
  return stopping_ || (!closed_.empty() && may_try);
}

PutQueue::Next PutQueue::wait_for_group() {
  MutexLock lock(mutex_);
  while (!can_commit()) {
    if (closed_.empty())
      committer_wake_.wait(mutex_);
    else
      committer_wake_.wait_until(mutex_, retry_at_);
  }
  Next next;
  if (closed_.empty() || (stopping_ && steady_now() < retry_at_)) {
    next.stop = stopping_;
    return next;
  }
  next.group = std::move(closed_.front());
  closed_.pop_front();
  closed_extents_ -= next.group->extents.size();
  return next;
}

void PutQueue::put_back(PutGroup group) {
  MutexLock lock(mutex_);
  retry_at_ = steady_now() + kRetryDelay;
  closed_extents_ += group.extents.size();
  closed_.push_front(std::move(group));
}

void PutQueue::settle(const PutGroup& group) {
  MutexLock lock(mutex_);
  for (const uint64_t sequence : group.sequences) unpublished_.erase(sequence);
  groups_settled_++;
  settled_.notify_all();
}

void PutQueue::condemn(uint32_t pack) {
  MutexLock lock(mutex_);
  condemned_.insert(pack);
}

}  // namespace cake
