#include "fetch/file_reader.h"

#include <algorithm>

#include "store/base/log.h"

namespace cake {

namespace {

// Holds the whole header of nearly every safetensors file (97 % need less than 100 kB), so that one
// request finds the cuts.
constexpr uint64_t kHeadProbeBytes = 128 * kKiB;
// A reader who waits is told why, in the log, this often.
constexpr Millis kLogEvery{60'000};
// A failure that was given to a reader is the answer to the next ones, for a while.
constexpr Millis kFailureMemory{5'000};
// An extent whose bytes do not match the digest known for it is fetched this often in all.
constexpr unsigned kMaxMismatches = 2;

// 0.1 s doubling to 5 s: short, because whoever waits waits with a page fault.
Millis retry_delay(unsigned attempts) {
  const unsigned doublings = std::min(attempts, 6u);
  const int64_t most = std::min<int64_t>(int64_t{100} << doublings, 5'000);
  // Jitter from the clock is enough to spread the readers of one host.
  const auto noise = static_cast<uint64_t>(steady_now().time_since_epoch().count()) >> 8;
  return Millis(most / 2 + static_cast<int64_t>(noise % static_cast<uint64_t>(most / 2 + 1)));
}

bool is_worth_retrying(Errc code) {
  switch (code) {
    case Errc::timeout:
    case Errc::rate_limited:
    case Errc::upstream:
    case Errc::offline:
    case Errc::corrupt:
      return true;
    default:
      return false;
  }
}

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

// The head of a file that is not cut yet, growing until the cutter can decide.
struct FileReader::HeadFetch final : RangeSink, std::enable_shared_from_this<HeadFetch> {
  explicit HeadFetch(std::shared_ptr<FileReader> owner) : reader(std::move(owner)) {}

  bool on_bytes(uint64_t offset, ByteSpan bytes) override {
    if (offset != head.size()) return false;
    // Grows with what has really come: a hostile length allocates nothing.
    head.insert(head.end(), bytes.begin(), bytes.end());
    return !reader->fetcher_->is_stopping();
  }
  void on_end(Status status) override {
    auto self = shared_from_this();
    // Parsing may take a while: not on the upstream's thread.
    reader->fetcher_->post(ThreadPool::Priority::demand,
                           [self, status] { self->reader->head_ended(self, status); });
  }

  const std::shared_ptr<FileReader> reader;
  Buffer head;
  uint64_t wanted = 0;
  unsigned attempts = 0;
  SteadyTime since = steady_now();
};

FileReader::FileReader(std::shared_ptr<Fetcher> fetcher, ContentRow content)
    : fetcher_(std::move(fetcher)),
      content_(std::move(content)),
      pack_name_(content_pack_name(content_.source, content_.key)),
      readahead_(content_.bytes, fetcher_->options().readahead),
      decode_ahead_(content_.bytes) {}

FileAddress FileReader::address() const {
  return {content_.repo, content_.commit, content_.path, content_.ids, content_.bytes};
}

std::string FileReader::describe(ByteRange bytes) const {
  return cat(content_.repo.id, "@", content_.commit.substr(0, 12), "/", content_.path, " bytes ",
             bytes.offset, "-", bytes.end());
}

std::optional<std::string> FileReader::last_error() const {
  MutexLock lock(mutex_);
  return last_error_;
}

std::string FileReader::cutter_name() const {
  if (!is_cut_.load(std::memory_order_acquire)) return "";
  return recipe_->cutter == Cutter::safetensors ? "safetensors" : "uniform";
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
  if (is_cut_.load(std::memory_order_acquire)) {
    return read_extents(offset, length, options, std::move(done));
  }
  with_recipe([self = shared_from_this(), offset, length, options,
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

  std::vector<uint64_t> ahead;
  if (options.drives_readahead) {
    start_decoding(offset, length);
    ahead = start_readahead(offset, length);
  }

  if (missing.empty()) {
    done(std::move(op->slices));
    if (!ahead.empty()) fetcher_->start(shared_from_this(), std::move(ahead), false);
    return false;
  }
  const bool is_mixed = missing.size() != op->slices.size() && needs_network(missing);
  if (is_mixed && options.may_ask_for_less && fetcher_->health().is_down()) {
    done(Error{Errc::offline,
               cat(describe({offset, length}), ": in part not in the store, and the hub is down")});
    return false;
  }

  // One more than the missing, for this function: `done` runs once everything is arranged.
  op->done = std::move(done);
  op->missing = missing.size() + 1;
  std::vector<uint64_t> to_start;
  std::vector<std::pair<uint64_t, ChunkPtr>> came_meanwhile;
  std::optional<Error> remembered;
  {
    MutexLock lock(mutex_);
    if (remembered_failure_ && steady_now() < failed_until_) remembered = remembered_failure_;
    for (const uint64_t ordinal : missing) {
      if (remembered) break;
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
      }
      flight->second.waiters.push_back([op, index](const Result<ChunkPtr>& arrival) {
        if (arrival) op->slices[index].chunk = *arrival;
        op->finish_one(arrival ? nullptr : &arrival.error());
      });
    }
  }
  if (remembered) {
    op->done(*remembered);
    return false;
  }
  for (auto& [index, chunk] : came_meanwhile) {
    op->slices[index].chunk = std::move(chunk);
    op->finish_one(nullptr);
  }
  if (!to_start.empty()) fetcher_->start(shared_from_this(), std::move(to_start), true);
  if (!ahead.empty()) fetcher_->start(shared_from_this(), std::move(ahead), false);
  op->finish_one(nullptr);
  return is_mixed;
}

std::vector<uint64_t> FileReader::start_readahead(uint64_t offset, uint64_t length) {
  const uint64_t limit = fetcher_->readahead_limit();
  if (limit == 0 || fetcher_->upstream() == nullptr) return {};
  ByteRange ask;
  {
    MutexLock lock(mutex_);
    ask = readahead_.on_access(offset, length, limit);
  }
  std::vector<uint64_t> ordinals;
  if (ask.length == 0) return ordinals;
  const Extents& cuts = extents();
  for (uint64_t ordinal = cuts.find(ask.offset); ordinal < cuts.count(); ordinal++) {
    if (cuts.at(ordinal).offset >= ask.end()) break;
    const Result<Known> known = find_known(ordinal);
    if (known && known->location) continue;
    MutexLock lock(mutex_);
    if (flights_.contains(ordinal) || unstored_.contains(ordinal)) continue;
    if (fetcher_->cache().find(content_.id, ordinal)) continue;
    flights_.emplace(ordinal, Flight{});
    ordinals.push_back(ordinal);
  }
  return ordinals;
}

ChunkPtr FileReader::find_local(uint64_t ordinal) {
  ChunkPtr chunk = fetcher_->cache().find(content_.id, ordinal);
  if (chunk) return chunk;
  const Result<Known> known = find_known(ordinal);
  {
    MutexLock lock(mutex_);
    const auto kept = unstored_.find(ordinal);
    if (kept != unstored_.end()) return kept->second;
    if (flights_.contains(ordinal)) return nullptr;
    if (known && !known->location) return nullptr;
    // Requests of 1 MiB seldom end where chunks do: the next one waits for this reading of it.
    flights_[ordinal].is_local = true;
  }
  chunk = read_stored(ordinal);
  if (!chunk) {
    local_flight_failed(ordinal);
    return nullptr;
  }
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

ChunkPtr FileReader::read_stored(uint64_t ordinal) {
  Result<Known> known = find_known(ordinal);
  if (!known) {
    log_error(known.error()
                  .with(describe({extents().at(ordinal).offset, extents().at(ordinal).length}))
                  .message);
    return nullptr;
  }
  if (!known->location) return nullptr;
  const uint64_t wanted_bytes = extents().at(ordinal).length;
  // The second look is for a location that went stale: the chunk was moved, or evicted by another
  // process.
  std::optional<Error> failure;
  for (int look = 0; look < 3; look++) {
    if (known->location->plain_bytes == wanted_bytes) {
      Result<ChunkPtr> chunk = fetcher_->store().chunks().read(*known->location);
      if (chunk && (*chunk)->size() == wanted_bytes) return std::move(chunk).value();
      if (!chunk) failure = chunk.error();
    }
    const auto again = fetcher_->store().index().find_chunks({&known->digest, 1});
    const std::optional<Location> now = again && !again->empty() ? again->front() : std::nullopt;
    set_known(ordinal, known->digest, now);
    if (!now) break;  // evicted
    if (now != known->location) {
      known->location = now;
      failure.reset();
      continue;
    }
    if (!failure) break;
    log_warn(failure->with(describe({extents().at(ordinal).offset, wanted_bytes})).message);
    if (failure->code == Errc::corrupt || failure->code == Errc::not_found) {
      const Status dropped = fetcher_->store().index().drop_chunk(known->digest, *known->location);
      if (!dropped.ok()) log_warn(dropped.error().with("dropping a bad chunk").message);
    }
    break;
  }
  set_known(ordinal, known->digest, std::nullopt);
  return nullptr;
}

Result<std::shared_ptr<FileReader::Segment>> FileReader::get_segment(uint64_t index) {
  {
    MutexLock lock(mutex_);
    const auto found = segments_.find(index);
    if (found != segments_.end()) return found->second;
  }
  auto segment = std::make_shared<Segment>();
  const uint64_t first = index * kSegmentExtents;
  const uint64_t count = std::min<uint64_t>(kSegmentExtents, extents().count() - first);
  Index& rows = fetcher_->store().index();
  segment->digests = CAKE_TRY(rows.find_digests(content_.id, first, count));
  segment->digests.resize(count);
  segment->locations.resize(count);
  std::vector<Digest> known;
  std::vector<uint64_t> places;
  for (uint64_t i = 0; i < count; i++) {
    if (segment->digests[i].is_zero()) continue;
    known.push_back(segment->digests[i]);
    places.push_back(i);
  }
  if (!known.empty()) {
    const auto locations = CAKE_TRY(rows.find_chunks(known));
    for (uint64_t i = 0; i < places.size() && i < locations.size(); i++)
      segment->locations[places[i]] = locations[i];
  }
  MutexLock lock(mutex_);
  return segments_.emplace(index, std::move(segment)).first->second;
}

Result<FileReader::Known> FileReader::find_known(uint64_t ordinal) {
  const std::shared_ptr<Segment> segment = CAKE_TRY(get_segment(ordinal / kSegmentExtents));
  MutexLock lock(mutex_);
  const uint64_t place = ordinal % kSegmentExtents;
  return Known{segment->digests[place], segment->locations[place]};
}

void FileReader::set_known(uint64_t ordinal, const Digest& digest,
                           std::optional<Location> location) {
  MutexLock lock(mutex_);
  const auto found = segments_.find(ordinal / kSegmentExtents);
  if (found == segments_.end()) return;  // loaded from the index when next touched
  const uint64_t place = ordinal % kSegmentExtents;
  found->second->digests[place] = digest;
  found->second->locations[place] = location;
}

// --- arrivals ---

std::vector<uint64_t> FileReader::deliver_stored(const std::vector<uint64_t>& ordinals) {
  std::vector<uint64_t> missing;
  Index& rows = fetcher_->store().index();
  std::vector<Digest> digests;
  for (size_t i = 0; i < ordinals.size();) {
    // Runs of neighbours in one look-up.
    size_t end = i + 1;
    while (end < ordinals.size() && ordinals[end] == ordinals[end - 1] + 1) end++;
    Result<std::vector<Digest>> run = rows.find_digests(content_.id, ordinals[i], end - i);
    if (run) digests.insert(digests.end(), run->begin(), run->end());
    digests.resize(end);
    i = end;
  }
  const auto locations = rows.find_chunks(digests);
  for (size_t i = 0; i < ordinals.size(); i++) {
    const bool is_there =
        locations && i < locations->size() && !digests[i].is_zero() && (*locations)[i];
    ChunkPtr chunk;
    if (!digests[i].is_zero())
      set_known(ordinals[i], digests[i], is_there ? (*locations)[i] : std::nullopt);
    if (is_there) chunk = read_stored(ordinals[i]);
    if (!chunk) {
      missing.push_back(ordinals[i]);
      continue;
    }
    fetcher_->cache().insert(content_.id, ordinals[i], chunk);
    complete(ordinals[i], chunk);
  }
  return missing;
}

void FileReader::complete(uint64_t ordinal, const Result<ChunkPtr>& result) {
  std::vector<Arrival> waiters;
  {
    MutexLock lock(mutex_);
    const auto flight = flights_.find(ordinal);
    if (flight == flights_.end()) return;
    waiters = std::move(flight->second.waiters);
    flights_.erase(flight);
  }
  for (const Arrival& waiter : waiters) waiter(result);
}

void FileReader::arrived(uint64_t ordinal, std::shared_ptr<ChunkBuffer> chunk) {
  std::optional<Digest> digest;
  const Result<Known> known = find_known(ordinal);
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
      log_error(failure.with(describe({extent.offset, extent.length})).message);
      if (mismatches >= kMaxMismatches)
        fail({ordinal}, failure);
      else
        range_ended({ordinal}, failure);
      return;
    }
  }
  const ChunkPtr shared = std::move(chunk);
  {
    MutexLock lock(mutex_);
    unstored_[ordinal] = shared;
    // The upstream is back: nothing is answered from a remembered failure.
    remembered_failure_.reset();
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
      self->set_known(ordinal, stored_as, *location);
    else
      self->fetcher_->bytes_unstored().add(self->extents().at(ordinal).length);
    MutexLock lock(self->mutex_);
    self->unstored_.erase(ordinal);
  };
  fetcher_->store().chunks().put(std::move(request));
}

bool FileReader::should_retry(const Error& error, unsigned attempts, SteadyTime since) const {
  if (fetcher_->is_stopping() || fetcher_->upstream() == nullptr) return false;
  if (!is_worth_retrying(error.code)) return false;
  const FetchOptions& options = fetcher_->options();
  if (options.is_hard) return true;
  return attempts <= options.retrans && steady_now() - since < options.timeo;
}

void FileReader::note_retry(const Error& error, ByteRange bytes) {
  {
    MutexLock lock(mutex_);
    last_error_ = cat(errc_name(error.code), ": ", error.message);
    if (steady_now() < next_log_) return;
    next_log_ = steady_now() + kLogEvery;
  }
  log_warn(cat(describe(bytes), ": ", error.message, "; trying again"));
}

void FileReader::range_ended(const std::vector<uint64_t>& ordinals, const Status& status) {
  const Error error =
      status.ok() ? Error{Errc::upstream, "the answer ended early"} : status.error();
  std::vector<uint64_t> again, hopeless;
  unsigned attempts = 0;
  {
    MutexLock lock(mutex_);
    for (const uint64_t ordinal : ordinals) {
      const auto found = flights_.find(ordinal);
      if (found == flights_.end()) continue;
      Flight& flight = found->second;
      flight.attempts++;
      attempts = std::max(attempts, flight.attempts);
      if (flight.waiters.empty())
        flights_.erase(found);  // readahead: whoever comes asks again
      else if (should_retry(error, flight.attempts, flight.since))
        again.push_back(ordinal);
      else
        hopeless.push_back(ordinal);
    }
  }
  if (!hopeless.empty()) fail(hopeless, error);
  if (again.empty()) return;
  const ByteRange bytes{extents().at(again.front()).offset,
                        extents().at(again.back()).end() - extents().at(again.front()).offset};
  note_retry(error, bytes);
  fetcher_->extents_refetched().add(again.size());
  fetcher_->start_after(retry_delay(attempts), shared_from_this(), std::move(again));
}

void FileReader::fail(const std::vector<uint64_t>& ordinals, const Error& error) {
  const Extent first = extents().at(ordinals.front());
  const Extent last = extents().at(ordinals.back());
  const Error full = note_failure(error, {first.offset, last.end() - first.offset});
  for (const uint64_t ordinal : ordinals) complete(ordinal, full);
}

Error FileReader::note_failure(const Error& error, ByteRange bytes) {
  Error full = error.with(describe(bytes));
  // The kernel asks for each page of a failed read again: one line and one request serve them all.
  const bool is_answer = error.code == Errc::denied || error.code == Errc::not_found;
  bool is_new = false;
  {
    MutexLock lock(mutex_);
    std::string text = cat(errc_name(error.code), ": ", error.message);
    is_new = last_error_ != text || steady_now() >= next_log_;
    if (is_new) next_log_ = steady_now() + kLogEvery;
    last_error_ = std::move(text);
    if (is_answer || (!fetcher_->options().is_hard && is_worth_retrying(error.code))) {
      remembered_failure_ = full;
      failed_until_ = steady_now() + kFailureMemory;
    }
  }
  if (is_new && error.code != Errc::cancelled) log_error(full.message);
  return full;
}

// --- recipe ---

void FileReader::with_recipe(Done<std::monostate> then) {
  {
    MutexLock lock(mutex_);
    if (!is_cut_.load(std::memory_order_relaxed)) {
      if (remembered_failure_ && steady_now() < failed_until_) {
        // Falls through to the callback below, outside the lock.
      } else {
        recipe_waiters_.push_back(std::move(then));
        if (is_cutting_) return;
        is_cutting_ = true;
      }
    }
  }
  if (then) {
    if (is_cut_.load(std::memory_order_acquire)) {
      then(std::monostate{});
      return;
    }
    std::optional<Error> remembered;
    {
      MutexLock lock(mutex_);
      remembered = remembered_failure_;
    }
    if (remembered)
      then(*remembered);
    else
      with_recipe(std::move(then));
    return;
  }
  const Result<bool> is_ready = load_or_cut();
  if (!is_ready) {
    recipe_ready(is_ready.error());
  } else if (*is_ready) {
    recipe_ready({});
  } else {
    fetch_head(std::make_shared<HeadFetch>(shared_from_this()));
  }
}

Result<bool> FileReader::load_or_cut() {
  std::optional<Recipe> stored = CAKE_TRY(load_recipe(fetcher_->store().index(), content_));
  if (!stored) {
    const Cutter wanted = wanted_cutter(content_.path);
    if (head_bytes_needed(wanted, {}, content_.bytes) != 0) return false;
    CAKE_TRY(store_cut(cut_file(wanted, {}, content_.bytes), {}));
    return true;
  }
  MutexLock lock(mutex_);
  recipe_ = std::move(stored);
  return true;
}

Status FileReader::store_cut(const Cut& cut, ByteSpan head) {
  CAKE_TRY(begin_recipe(fetcher_->store(), content_, cut, head));
  // Another process may have been first: what is stored is what counts, for all.
  std::optional<Recipe> stored = CAKE_TRY(load_recipe(fetcher_->store().index(), content_));
  if (!stored) return Error{Errc::corrupt, cat("the recipe of ", content_.path, " vanished")};
  MutexLock lock(mutex_);
  recipe_ = std::move(stored);
  return {};
}

void FileReader::recipe_ready(const Status& status) {
  std::vector<Done<std::monostate>> waiters;
  {
    MutexLock lock(mutex_);
    is_cutting_ = false;
    if (status.ok()) is_cut_.store(true, std::memory_order_release);
    waiters.swap(recipe_waiters_);
  }
  for (const auto& waiter : waiters) {
    if (status.ok())
      waiter(std::monostate{});
    else
      waiter(status.error());
  }
}

void FileReader::fetch_head(std::shared_ptr<HeadFetch> head) {
  Upstream* const target = fetcher_->upstream();
  const uint64_t have = head->head.size();
  if (target == nullptr) {
    recipe_ready(Error{Errc::offline, cat(describe({0, content_.bytes}),
                                          ": not in the store, and the mount is offline")});
    return;
  }
  const uint64_t needed =
      head_bytes_needed(wanted_cutter(content_.path), head->head, content_.bytes);
  head->wanted = std::min(std::max(needed, kHeadProbeBytes), content_.bytes);
  const Deadline deadline =
      fetcher_->options().is_hard ? Deadline::never() : Deadline::after(fetcher_->options().timeo);
  target->read(address(), {have, head->wanted - have}, true, deadline, head);
}

void FileReader::head_ended(std::shared_ptr<HeadFetch> head, const Status& status) {
  const uint64_t have = head->head.size();
  if (have > head->wanted) head->head.resize(head->wanted);
  if (!status.ok() || have < head->wanted) {
    const Error error =
        status.ok() ? Error{Errc::upstream, "the answer ended early"} : status.error();
    fetcher_->health().failed(error.code);
    const ByteRange bytes{have, head->wanted - have};
    if (!should_retry(error, ++head->attempts, head->since)) {
      recipe_ready(note_failure(error, bytes));
      return;
    }
    note_retry(error, bytes);
    Upstream* const target = fetcher_->upstream();
    if (target == nullptr) {
      recipe_ready(Error{Errc::cancelled, "unmounting"});
      return;
    }
    target->after(retry_delay(head->attempts), [head] {
      head->reader->fetcher_->post(ThreadPool::Priority::demand,
                                   [head] { head->reader->fetch_head(head); });
    });
    return;
  }
  fetcher_->health().succeeded();
  if (head_bytes_needed(wanted_cutter(content_.path), head->head, content_.bytes) > have) {
    fetch_head(std::move(head));
    return;
  }
  const Cut cut = cut_file(wanted_cutter(content_.path), head->head, content_.bytes);
  if (!cut.refusal.empty())
    log_info(cat(describe({0, content_.bytes}), ": served as opaque bytes: ", cut.refusal));
  const Status stored = store_cut(cut, head->head);
  if (!stored.ok()) {
    log_error(stored.error().with(describe({0, content_.bytes})).message);
    recipe_ready(stored);
    return;
  }
  adopt_head(head->head);
  recipe_ready({});
}

void FileReader::adopt_head(const Buffer& head) {
  // The header, and any small tensors behind it, need not be asked for again.
  for (uint64_t ordinal = 0; ordinal < extents().count(); ordinal++) {
    const Extent extent = extents().at(ordinal);
    if (extent.end() > head.size()) break;
    auto chunk = fetcher_->store().buffers().allocate(extent.length);
    std::memcpy(chunk->bytes().data(), head.data() + extent.offset, extent.length);
    arrived(ordinal, std::move(chunk));
  }
}

}  // namespace cake
