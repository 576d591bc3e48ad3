#include "fetch/file_reader.h"

#include <algorithm>
#include <numeric>

#include "fetch/readahead.h"
#include "store/base/log.h"

namespace cake {

namespace {

// An extent whose bytes do not match the digest known for it is fetched this often in all.
constexpr unsigned kMaxMismatches = 2;

}  // namespace

// One read under way: slices in order, and how many are missing.
struct FileReader::ReadOp {
  Slices slices;
  Done<Slices> done;
  std::atomic<size_t> missing{0};
  Mutex mutex;
  std::optional<Error> error GUARDED_BY(mutex);

  void finish_one(const Error* failure) {
    if (failure != nullptr) {
      MutexLock lock(mutex);
      if (!error) error = *failure;
    }
    if (missing.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    std::optional<Error> first_error;
    {
      MutexLock lock(mutex);
      first_error = std::move(error);
    }
    if (first_error)
      done(std::move(*first_error));
    else
      done(std::move(slices));
  }
};

FileReader::FileReader(std::shared_ptr<Fetcher> fetcher, ContentRow content, ReaderEvents events)
    : fetcher_(std::move(fetcher)),
      content_(std::move(content)),
      pack_name_(content_pack_name(content_.source, content_.key)),
      events_(std::move(events)),
      trouble_(*fetcher_, content_),
      stored_(fetcher_->store(), content_, trouble_),
      places_(fetcher_->store().index(), content_),
      cut_(*fetcher_, content_, trouble_, places_,
           [this](const Buffer& head) { adopt_head(head); }),
      decode_ahead_(content_.bytes) {}

FileReader::~FileReader() = default;

std::string FileReader::cutter_name() const {
  if (!cut_.is_known()) return "";
  return cut_.recipe().cutter == Cutter::safetensors ? "safetensors" : "uniform";
}

// --- reading ---

bool FileReader::read(uint64_t offset, uint64_t length, ReadOptions options, Done<Slices> done) {
  if (offset >= content_.bytes) {
    done(Slices{});
    return false;
  }
  length = std::min(length, content_.bytes - offset);
  if (length == 0) {
    done(Slices{});
    return false;
  }
  if (cut_.is_known()) return read_extents(offset, length, options, std::move(done));
  // The pointer keeps this reader, which the cut is a part of.
  const std::shared_ptr<FileCut> cut(shared_from_this(), &cut_);
  FileCut::find(cut, [self = shared_from_this(), offset, length, options,
                      done = std::move(done)](const Result<std::monostate>& ready) {
    if (!ready)
      done(ready.error());
    else
      self->read_extents(offset, length, options, done);
  });
  return false;
}

bool FileReader::read_extents(uint64_t offset, uint64_t length, ReadOptions options,
                              Done<Slices> done) {
  const Extents& cuts = extents();
  const uint64_t end = offset + length;
  const uint64_t first = cuts.find(offset);
  auto op = std::make_shared<ReadOp>();
  std::vector<uint64_t> missing;
  for (uint64_t ordinal = first; ordinal < cuts.count(); ordinal++) {
    const Extent extent = cuts.at(ordinal);
    if (extent.offset >= end) break;
    const uint64_t from = std::max(offset, extent.offset) - extent.offset;
    const uint64_t to = std::min(end, extent.end()) - extent.offset;
    ChunkPtr chunk = find_local(ordinal);
    if (!chunk) missing.push_back(ordinal);
    op->slices.push_back({std::move(chunk), from, to - from});
  }

  if (options.drives_readahead) start_decoding(offset, length);

  if (missing.empty()) {
    done(std::move(op->slices));
    if (options.drives_readahead) read_ahead(offset, length);
    return false;
  }
  const bool is_absent = needs_network(missing);
  const bool is_mixed = is_absent && missing.size() != op->slices.size();
  if (is_mixed && options.may_ask_for_less && fetcher_->health().is_down()) {
    done(Error{Errc::offline, cat(trouble_.describe({offset, length}),
                                  ": in part not in the store, and the hub is down")});
    return false;
  }

  if (const std::optional<Error> remembered = trouble_.remembered(); remembered && is_absent) {
    done(*remembered);
    return false;
  }

  // One more than the missing, for this function: `done` runs once everything is arranged.
  op->done = std::move(done);
  op->missing = missing.size() + 1;
  std::vector<uint64_t> to_start, joined;
  std::vector<std::pair<uint64_t, ChunkPtr>> came_meanwhile;
  {
    MutexLock lock(mutex_);
    for (const uint64_t ordinal : missing) {
      const uint64_t index = ordinal - first;
      auto flight = flights_.find(ordinal);
      if (flight == flights_.end()) {
        // It may have landed since find_local looked.
        ChunkPtr chunk = fetcher_->cache().find(content_.id, ordinal);
        if (!chunk) {
          const auto kept = unstored_.find(ordinal);
          if (kept != unstored_.end()) chunk = kept->second;
        }
        if (chunk) {
          came_meanwhile.emplace_back(index, std::move(chunk));
          continue;
        }
        flight = flights_.emplace(ordinal, Flight{}).first;
        to_start.push_back(ordinal);
      } else {
        joined.push_back(ordinal);
      }
      flight->second.waiters.push_back([op, index](const Result<ChunkPtr>& arrival) {
        if (arrival) op->slices[index].chunk = *arrival;
        op->finish_one(arrival ? nullptr : &arrival.error());
      });
    }
  }
  for (auto& [index, chunk] : came_meanwhile) {
    op->slices[index].chunk = std::move(chunk);
    op->finish_one(nullptr);
  }
  if (!joined.empty()) fetcher_->hurry(*this, joined);
  if (!to_start.empty()) fetcher_->start(shared_from_this(), std::move(to_start), true);
  // After the flights above: the last extent of this read may reach into what is read ahead.
  if (options.drives_readahead) read_ahead(offset, length);
  op->finish_one(nullptr);
  return is_mixed;
}

void FileReader::read_ahead(uint64_t offset, uint64_t length) {
  if (fetcher_->upstream() == nullptr) return;
  if (events_.on_first_read && !was_read_.exchange(true, std::memory_order_relaxed))
    events_.on_first_read(content_);
  const uint64_t limit = fetcher_->readahead_limit();
  ReadaheadAsk ask;
  {
    MutexLock lock(mutex_);
    if (!readahead_)
      readahead_ = std::make_unique<Readahead>(extents(), fetcher_->options().readahead);
    ask = readahead_->on_access({offset, length}, steady_now(), limit);
  }
  if (ask.next_file.length != 0 && events_.on_next_wanted)
    events_.on_next_wanted(content_, ask.next_file);
  if (ask.bytes.length == 0) return;
  std::vector<uint64_t> ordinals = start_missing(ask.bytes, {});
  if (!ordinals.empty()) fetcher_->start(shared_from_this(), std::move(ordinals), false);
}

std::vector<uint64_t> FileReader::start_missing(ByteRange bytes, const Arrival& watcher) {
  std::vector<uint64_t> ordinals;
  const Extents& cuts = extents();
  for (uint64_t ordinal = cuts.find(bytes.offset); ordinal < cuts.count(); ordinal++) {
    if (cuts.at(ordinal).offset >= bytes.end()) break;
    const Result<StoredExtents::Known> known = stored_.find(cuts, ordinal);
    if (known && known->location) continue;
    MutexLock lock(mutex_);
    if (flights_.contains(ordinal) || unstored_.contains(ordinal)) continue;
    if (fetcher_->cache().find(content_.id, ordinal)) continue;
    Flight& flight = flights_[ordinal];
    flight.is_ahead = true;
    if (watcher) flight.watchers.push_back(watcher);
    ordinals.push_back(ordinal);
  }
  return ordinals;
}

void FileReader::prefetch(ByteRange bytes, Done<std::monostate> done) {
  const std::shared_ptr<FileCut> cut(shared_from_this(), &cut_);
  FileCut::find(cut, [self = shared_from_this(), bytes,
                      done = std::move(done)](const Result<std::monostate>& ready) {
    if (!ready)
      done(ready.error());
    else
      self->prefetch_extents(bytes, done);
  });
}

void FileReader::prefetch_extents(ByteRange bytes, Done<std::monostate> done) {
  auto op = std::make_shared<ReadOp>();
  op->done = [done = std::move(done)](const Result<Slices>& result) {
    if (result)
      done(std::monostate{});
    else
      done(result.error());
  };
  const Arrival watcher = [op](const Result<ChunkPtr>& arrival) {
    op->finish_one(arrival ? nullptr : &arrival.error());
  };
  std::vector<uint64_t> ordinals = start_missing(bytes, watcher);
  op->missing = ordinals.size() + 1;  // nothing arrives before it is started
  if (!ordinals.empty()) fetcher_->start(shared_from_this(), std::move(ordinals), false);
  op->finish_one(nullptr);
}

ChunkPtr FileReader::find_local(uint64_t ordinal) {
  ChunkPtr chunk = fetcher_->cache().find(content_.id, ordinal);
  if (chunk) return chunk;
  const Result<StoredExtents::Known> known = stored_.find(extents(), ordinal);
  {
    MutexLock lock(mutex_);
    const auto kept = unstored_.find(ordinal);
    if (kept != unstored_.end()) return kept->second;
    if (flights_.contains(ordinal)) return nullptr;
    if (known && !known->location) return nullptr;
    // Requests of 1 MiB seldom end where chunks do: the next one waits for this reading of it.
    flights_[ordinal].is_local = true;
  }
  chunk = stored_.read(extents(), ordinal);
  if (!chunk) {
    local_flight_failed(ordinal);
    return nullptr;
  }
  fetcher_->chunks_read().add();
  fetcher_->cache().insert(content_.id, ordinal, chunk);
  complete(ordinal, chunk);
  return chunk;
}

void FileReader::local_flight_failed(uint64_t ordinal) {
  {
    MutexLock lock(mutex_);
    const auto flight = flights_.find(ordinal);
    if (flight == flights_.end()) return;
    if (flight->second.waiters.empty()) {
      flights_.erase(flight);
      return;
    }
    flight->second.is_local = false;
  }
  fetcher_->start(shared_from_this(), {ordinal}, true);
}

bool FileReader::needs_network(const std::vector<uint64_t>& ordinals) const {
  MutexLock lock(mutex_);
  for (const uint64_t ordinal : ordinals) {
    const auto flight = flights_.find(ordinal);
    if (flight == flights_.end() || !flight->second.is_local) return true;
  }
  return false;
}

void FileReader::start_decoding(uint64_t offset, uint64_t length) {
  ByteRange ask;
  {
    MutexLock lock(mutex_);
    ask = decode_ahead_.on_access(offset, length);
  }
  // What the cache would drop again before it is read is not worth decoding.
  if (fetcher_->store().budget().available() < ask.length) return;
  while (ask.length > 0) {
    const ByteRange part{ask.offset, std::min(ask.length, kChunkBytes)};
    fetcher_->post(ThreadPool::Priority::demand, [self = shared_from_this(), part] {
      const Extents& cuts = self->extents();
      for (uint64_t ordinal = cuts.find(part.offset); ordinal < cuts.count(); ordinal++) {
        if (cuts.at(ordinal).offset >= part.end()) break;
        self->find_local(ordinal);
      }
    });
    ask = {part.end(), ask.length - part.length};
  }
}

// --- arrivals ---

std::vector<uint64_t> FileReader::deliver_stored(const std::vector<uint64_t>& ordinals) {
  const std::vector<StoredExtents::Known> known = stored_.find_again(ordinals);
  std::vector<uint64_t> missing;
  for (size_t i = 0; i < ordinals.size(); i++) {
    const ChunkPtr chunk =
        known[i].location ? stored_.read(extents(), ordinals[i]) : ChunkPtr(nullptr);
    if (!chunk) {
      missing.push_back(ordinals[i]);
      continue;
    }
    fetcher_->cache().insert(content_.id, ordinals[i], chunk);
    complete(ordinals[i], chunk);
  }
  return missing;
}

std::vector<uint64_t> FileReader::awaited(const PlannedRange& range) const {
  std::vector<uint64_t> ordinals;
  MutexLock lock(mutex_);
  for (auto flight = flights_.lower_bound(range.first);
       flight != flights_.end() && flight->first < range.first + range.count; ++flight)
    if (!flight->second.waiters.empty()) ordinals.push_back(flight->first);
  return ordinals;
}

void FileReader::complete(uint64_t ordinal, const Result<ChunkPtr>& result) {
  Flight ended;
  {
    MutexLock lock(mutex_);
    const auto flight = flights_.find(ordinal);
    if (flight == flights_.end()) return;
    ended = std::move(flight->second);
    flights_.erase(flight);
  }
  for (const Arrival& waiter : ended.waiters) waiter(result);
  for (const Arrival& watcher : ended.watchers) watcher(result);
}

void FileReader::arrived(uint64_t ordinal, std::shared_ptr<ChunkBuffer> chunk) {
  std::optional<Digest> digest;
  const Result<StoredExtents::Known> known = stored_.find(extents(), ordinal);
  if (known && !known->digest.is_zero()) {
    // Evicted earlier: the digest stayed, and is proof.
    digest = blake3(chunk->bytes());
    if (*digest != known->digest) {
      const Extent extent = extents().at(ordinal);
      unsigned mismatches = 0;
      {
        MutexLock lock(mutex_);
        const auto flight = flights_.find(ordinal);
        if (flight != flights_.end()) mismatches = ++flight->second.mismatches;
      }
      const Error failure{Errc::corrupt,
                          "the hub's bytes are not those fetched before (digest differs)"};
      log_error(failure.with(trouble_.describe({extent.offset, extent.length})).message);
      if (mismatches >= kMaxMismatches)
        fail({ordinal}, failure);
      else
        range_ended({ordinal}, failure);
      return;
    }
  }
  const ChunkPtr shared = std::move(chunk);
  trouble_.forget();
  {
    MutexLock lock(mutex_);
    unstored_[ordinal] = shared;
    const auto flight = flights_.find(ordinal);
    if (flight != flights_.end() && flight->second.is_ahead && readahead_)
      readahead_->on_arrival(
          std::chrono::duration_cast<Millis>(steady_now() - flight->second.since));
  }
  fetcher_->cache().insert(content_.id, ordinal, shared);
  // Queued first, which takes no time, so that a flush after a read covers what was read.
  put(ordinal, shared, digest);
  complete(ordinal, shared);
}

void FileReader::put(uint64_t ordinal, ChunkPtr chunk, std::optional<Digest> digest) {
  // The disk does not keep up: readers come first, and these bytes are fetched again some day.
  if (fetcher_->store().chunks().queued_bytes() > fetcher_->store().budget().limit() / 2) {
    fetcher_->bytes_unstored().add(chunk->size());
    fetcher_->tell_slow_disk();
    MutexLock lock(mutex_);
    unstored_.erase(ordinal);
    return;
  }
  PutRequest request;
  request.content = content_.id;
  request.content_name = pack_name_;
  request.ordinal = ordinal;
  request.dtype = extents().at(ordinal).dtype;
  request.plain = std::move(chunk);
  request.digest = digest;
  request.done = [self = shared_from_this(), ordinal](const Digest& stored_as,
                                                      Result<Location> location) {
    if (location)
      self->stored_.set(ordinal, stored_as, *location);
    else
      self->fetcher_->bytes_unstored().add(self->extents().at(ordinal).length);
    MutexLock lock(self->mutex_);
    self->unstored_.erase(ordinal);
  };
  fetcher_->store().chunks().put(std::move(request));
}

void FileReader::range_ended(const std::vector<uint64_t>& ordinals, const Status& status) {
  const Error error =
      status.ok() ? Error{Errc::upstream, "the answer ended early"} : status.error();
  std::vector<uint64_t> again, hopeless;
  std::vector<Arrival> watchers;
  unsigned attempts = 0;
  {
    MutexLock lock(mutex_);
    for (const uint64_t ordinal : ordinals) {
      const auto found = flights_.find(ordinal);
      if (found == flights_.end()) continue;
      Flight& flight = found->second;
      flight.attempts++;
      attempts = std::max(attempts, flight.attempts);
      if (flight.waiters.empty()) {
        std::move(flight.watchers.begin(), flight.watchers.end(), std::back_inserter(watchers));
        flights_.erase(found);  // readahead: whoever comes asks again
      } else if (trouble_.should_retry(error, flight.attempts))
        again.push_back(ordinal);
      else
        hopeless.push_back(ordinal);
    }
  }
  for (const Arrival& watcher : watchers) watcher(error);
  if (!hopeless.empty()) fail(hopeless, error);
  if (again.empty()) return;
  const ByteRange bytes{extents().at(again.front()).offset,
                        extents().at(again.back()).end() - extents().at(again.front()).offset};
  trouble_.note_retry(error, bytes);
  fetcher_->extents_refetched().add(again.size());
  fetcher_->start_after(FileTrouble::retry_delay(attempts), shared_from_this(), std::move(again));
}

void FileReader::range_refused(const std::vector<uint64_t>& ordinals, const Error& error,
                               const FileAddress& address) {
  const auto leave = [self = shared_from_this(), ordinals, error, address] {
    self->places_.leave(address, [self, ordinals, error](bool has_other) {
      if (has_other)
        self->restart(ordinals);
      else
        self->range_ended(ordinals, error);
    });
  };
  if (!fetcher_->post(ThreadPool::Priority::demand, leave))
    range_ended(ordinals, Error{Errc::cancelled, "unmounting"});
}

void FileReader::restart(const std::vector<uint64_t>& ordinals) {
  std::vector<uint64_t> awaited_ones, ahead;
  {
    MutexLock lock(mutex_);
    for (const uint64_t ordinal : ordinals) {
      const auto flight = flights_.find(ordinal);
      if (flight == flights_.end()) continue;
      (flight->second.waiters.empty() ? ahead : awaited_ones).push_back(ordinal);
    }
  }
  if (!awaited_ones.empty()) fetcher_->start(shared_from_this(), std::move(awaited_ones), true);
  if (!ahead.empty()) fetcher_->start(shared_from_this(), std::move(ahead), false);
}

// --- the whole file in one stream ---

FileStream::WholeBody FileReader::whole_body_came(const PlannedRange& wanted) {
  const FileStream::WholeBody choice = stream_.whole_body_came(wanted.bytes);
  if (choice != FileStream::WholeBody::take) return choice;
  log_info(cat(trouble_.describe(wanted.bytes),
               ": the server ignores ranges; the file is taken as it passes"));
  std::vector<uint64_t> ordinals(wanted.count);
  std::iota(ordinals.begin(), ordinals.end(), wanted.first);
  stream_.join(ordinals);
  return choice;
}

bool FileReader::lacks(uint64_t ordinal) {
  {
    MutexLock lock(mutex_);
    const auto flight = flights_.find(ordinal);
    if (flight != flights_.end()) return !flight->second.is_local;
    if (unstored_.contains(ordinal)) return false;
  }
  const Result<StoredExtents::Known> known = stored_.find(extents(), ordinal);
  return known && !known->location;
}

bool FileReader::stream_goes_on(uint64_t next) {
  bool is_wanted_ahead = false, is_wanted_behind = false;
  {
    MutexLock lock(mutex_);
    for (const auto& [ordinal, flight] : flights_) {
      if (flight.is_local) continue;
      if (ordinal >= next)
        is_wanted_ahead = true;
      else if (!flight.waiters.empty())
        is_wanted_behind = true;
    }
  }
  return stream_.goes_on(extents().at(next).offset, is_wanted_ahead, is_wanted_behind);
}

std::vector<uint64_t> FileReader::stream_ended() {
  std::vector<uint64_t> ordinals = stream_.end();
  std::sort(ordinals.begin(), ordinals.end());
  ordinals.erase(std::unique(ordinals.begin(), ordinals.end()), ordinals.end());
  MutexLock lock(mutex_);
  std::erase_if(ordinals,
                [&](uint64_t ordinal) REQUIRES(mutex_) { return !flights_.contains(ordinal); });
  return ordinals;
}

void FileReader::fail(const std::vector<uint64_t>& ordinals, const Error& error) {
  const Extent first = extents().at(ordinals.front());
  const Extent last = extents().at(ordinals.back());
  const Error full = trouble_.note_failure(error, {first.offset, last.end() - first.offset});
  for (const uint64_t ordinal : ordinals) complete(ordinal, full);
}

void FileReader::adopt_head(const Buffer& head) {
  for (uint64_t ordinal = 0; ordinal < extents().count(); ordinal++) {
    const Extent extent = extents().at(ordinal);
    if (extent.end() > head.size()) break;
    auto chunk = fetcher_->store().buffers().allocate(extent.length);
    std::memcpy(chunk->bytes().data(), head.data() + extent.offset, extent.length);
    arrived(ordinal, std::move(chunk));
  }
}

}  // namespace cake
