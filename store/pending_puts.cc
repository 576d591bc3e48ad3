#include "store/pending_puts.h"

#include <utility>

#include "store/base/clock.h"
#include "store/base/log.h"

namespace cake {

namespace {

constexpr Millis kLogInterval{60'000};

}  // namespace

PendingPuts::PendingPuts(PutQueue& queue, Metrics& metrics)
    : queue_(queue),
      stored_(metrics.counter("store.chunks_stored")),
      deduplicated_(metrics.counter("store.chunks_deduplicated")),
      bytes_deduplicated_(metrics.counter("store.bytes_deduplicated")),
      unstored_(metrics.counter("store.chunks_unstored")),
      plain_written_(metrics.counter("store.bytes_stored")),
      encoded_written_(metrics.counter("store.bytes_written")) {}

bool PendingPuts::join(const PutJobPtr& job) {
  std::optional<Location> known;
  {
    MutexLock lock(mutex_);
    const auto [found, fresh] = pending_.try_emplace(job->digest);
    if (fresh) return true;
    known = found->second.location;
    if (!known) {
      // Someone is at it; their result will be ours.
      job->request.plain.reset();
      queued_bytes_ -= job->plain_bytes;
      found->second.waiters.push_back(job);
    }
  }
  if (known) add_deduped(job, *known);
  return false;
}

void PendingPuts::end_written(const PutItem& item, const Location& location) {
  PutJob& job = *item.job;
  stored_.add();
  plain_written_.add(location.plain_bytes);
  encoded_written_.add(location.encoded_bytes);
  queued_bytes_ -= job.plain_bytes;
  job.request.plain.reset();
  if (job.request.done) job.request.done(item.header.digest, location);
  PutQueue::Addition addition;
  addition.sequence = item.sequence;
  addition.bytes = location.encoded_bytes;
  addition.extent = {job.request.content, job.request.ordinal, item.header.digest, location,
                     location.plain_bytes};
  if (job.encode_later) addition.unencoded = {item.header, location};
  queue_.add_to_group(addition);
  for (const PutJobPtr& waiter : take_waiters(item.header.digest, location))
    add_deduped(waiter, location);
}

void PendingPuts::end_found(const PutJobPtr& job, const Location& location) {
  for (const PutJobPtr& waiter : take_waiters(job->digest, std::nullopt))
    add_deduped(waiter, location);
  add_deduped(job, location);
}

void PendingPuts::end_failed(const PutJobPtr& job, const Error& error) {
  for (const PutJobPtr& waiter : take_waiters(job->digest, std::nullopt)) fail(waiter, error);
  fail(job, error);
}

// The chunk's place is known, or it will have none that is found here.
std::vector<PutJobPtr> PendingPuts::take_waiters(const Digest& digest,
                                                 const std::optional<Location>& location) {
  MutexLock lock(mutex_);
  const auto found = pending_.find(digest);
  CAKE_CHECK(found != pending_.end());
  std::vector<PutJobPtr> waiters = std::move(found->second.waiters);
  found->second.waiters.clear();
  if (location)
    found->second.location = location;
  else
    pending_.erase(found);
  return waiters;
}

void PendingPuts::add_deduped(const PutJobPtr& job, const Location& location) {
  deduplicated_.add();
  bytes_deduplicated_.add(job->plain_bytes);
  if (job->request.plain) queued_bytes_ -= job->plain_bytes;
  job->request.plain.reset();
  if (job->request.done) job->request.done(job->digest, location);
  PutQueue::Addition addition;
  addition.sequence = job->sequence;
  addition.extent = {job->request.content, job->request.ordinal, job->digest, std::nullopt,
                     job->plain_bytes};
  addition.content = job->content;
  addition.deduped = {job->request.ordinal, job->plain_bytes, job->digest};
  queue_.add_to_group(addition);
}

void PendingPuts::fail(const PutJobPtr& job, const Error& error) {
  unstored_.add();
  log_failure(error);
  if (job->request.plain) queued_bytes_ -= job->plain_bytes;
  job->request.plain.reset();
  if (job->request.done) job->request.done(job->digest, error);
  queue_.withdraw(job->sequence);
}

void PendingPuts::forget(std::span<const PublishedExtent> extents) {
  MutexLock lock(mutex_);
  for (const PublishedExtent& extent : extents)
    if (extent.location && !extent.replaces) pending_.erase(extent.digest);
}

void PendingPuts::count_lost(std::span<const PublishedExtent> extents) {
  for (const PublishedExtent& extent : extents)
    if (extent.location) unstored_.add();
}

void PendingPuts::log_failure(const Error& error) {
  {
    MutexLock lock(mutex_);
    if (steady_now() < next_log_) return;
    next_log_ = steady_now() + kLogInterval;
  }
  log_error(cat("chunks are served but not stored: ", error.message, " (", unstored_.value(),
                " so far; logged once a minute)"));
}

}  // namespace cake
