#include "store/chunk_store.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "store/base/clock.h"
#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/base/mutex.h"
#include "store/evict.h"
#include "store/pack.h"
#include "store/pack_record.h"
#include "store/salvage.h"

namespace cake {

namespace {

// Appended with one system call or few; small enough that nobody waits long for the first of them.
constexpr uint64_t kBatchBytes = 8 * kMiB;
constexpr size_t kBatchEntries = 256;
// Appended extents that the index refuses (disk full) are kept and tried again; beyond these, puts
// fail instead of taking ever more memory.
constexpr size_t kMaxUnpublished = 65'536;
// Encoders are behind when this part of the memory budget waits for them: half of what makes
// readahead pause (fetch/fetcher.cc).
constexpr uint64_t kBehindShare = 8;
// Of what was stored unencoded for want of processors, so much is remembered.
constexpr size_t kMaxUnencoded = 65'536;
constexpr Millis kRetryDelay{1000};
// A full store's writer waits so long for its own rows.
constexpr Millis kPublishPatience{5'000};
// Disk space that was taken and not used is given back after so much quiet.
constexpr Millis kQuiet{1000};
constexpr Millis kLogInterval{60'000};

struct Job {
  PutRequest request;
  uint64_t sequence = 0;
  uint32_t plain_bytes = 0;
  Digest digest;
  Digest content;  // content_name, parsed
  bool encode_later = false;
};
using JobPtr = std::shared_ptr<Job>;

// A chunk at rest that an encoder has not seen.
struct Unencoded {
  EntryHeader header;
  Location location;
};

// An entry on its way to the pack.
struct Item {
  EntryHeader header;
  Buffer encoded;                    // the payload; of a raw chunk it is job->request.plain
  JobPtr job;                        // of a chunk
  std::optional<Location> replaces;  // of a chunk that was stored unencoded
  uint64_t sequence = 0;

  bool is_record() const { return job == nullptr && !replaces; }
  ByteSpan payload() const {
    const bool is_raw_chunk = job != nullptr && header.codec == CodecId::raw;
    return is_raw_chunk ? job->request.plain->bytes() : ByteSpan(encoded);
  }
};

// What is made durable and published together.  All its locations are in one pack.
struct Group {
  std::shared_ptr<const PackWriter> pack;  // null when no pack could be had: only digests then
  uint64_t end = 0;                        // of the pack's entries that belong to it
  bool seal = false;                       // the pack's last
  std::vector<PublishedExtent> extents;
  std::map<Digest, std::vector<SegmentItem>> deduped;  // by content name
  std::vector<uint64_t> sequences;
  std::vector<Unencoded> unencoded;
  uint64_t bytes = 0;
  SteadyTime since;
  bool is_empty() const { return sequences.empty() && !seal; }
};

struct Flusher {
  uint64_t target = 0;  // all sequences below
  std::function<void(Status)> done;
};

// Finer than unix_now(): two facts about one repo can be a millisecond apart.
int64_t unix_microseconds() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// None of what the flusher waits for is in `waiting`.
bool has_passed(const Flusher& flusher, const std::set<uint64_t>& waiting) {
  return waiting.empty() || *waiting.begin() >= flusher.target;
}

}  // namespace

struct ChunkStore::Impl {
  Impl(std::string packs_directory, Index& index_in, BufferPool& buffers_in, ThreadPool& pool_in,
       CodecChoice codec_in, Metrics& metrics, uint64_t pack_limit, Evictor* evictor_in)
      : directory(std::move(packs_directory)),
        index(index_in),
        buffers(buffers_in),
        pool(pool_in),
        codec(codec_in),
        pack_bytes(pack_limit),
        evictor(evictor_in),
        stored(metrics.counter("store.chunks_stored")),
        deduplicated(metrics.counter("store.chunks_deduplicated")),
        bytes_deduplicated(metrics.counter("store.bytes_deduplicated")),
        unstored(metrics.counter("store.chunks_unstored")),
        read_corrupt(metrics.counter("store.reads_corrupt")),
        plain_written(metrics.counter("store.bytes_stored")),
        encoded_written(metrics.counter("store.bytes_written")),
        deferred(metrics.counter("store.chunks_unencoded")),
        recoded(metrics.counter("store.chunks_recoded")),
        reader(directory, index) {}

  // --- on pool threads ---
  void process(const JobPtr& job);
  void encode(const JobPtr& job);
  Result<bool> recode(const Unencoded& chunk);
  void punch(const Location& location);
  // --- on the writer's thread ---
  struct Work {
    std::vector<Item> items;
    std::optional<Group> close;
    bool rotate = false;
    bool quiet = false;
    bool stop = false;
  };
  void run_writer();
  Work wait_for_work() EXCLUDES(mutex);
  bool must_close() const REQUIRES(mutex);
  Status acquire_pack();
  Status take_room(std::span<const NewEntry> entries);
  void give_back_room();
  void write(std::vector<Item> items);
  void write_batch(std::vector<Item> batch);
  void close(Group group);
  void publish_written() EXCLUDES(mutex);
  // --- on the committer's thread ---
  void run_committer();
  struct Outcome {
    Status status;
    // lost: the bytes are not durable; refused: they are, and the rows can be tried again.
    enum Kind { committed, lost, refused } kind;
  };
  Outcome commit(const Group& group);
  void give_up(uint32_t pack_id);
  std::vector<Flusher> take_flushers(bool all) EXCLUDES(mutex);
  // --- anywhere ---
  void submit(Item item);
  void submit_new(Item item) EXCLUDES(mutex);
  std::optional<Unencoded> take_unencoded() REQUIRES(mutex);
  void post_recode(Unencoded chunk);
  void recode_when_idle() EXCLUDES(mutex);
  void end_pool_task() EXCLUDES(mutex);
  Result<ChunkPtr> read(const Location& location);
  void record(EntryKind kind, const Digest& content, Buffer payload);
  void add_deduped(const JobPtr& job, const Location& location);
  void fail(const JobPtr& job, const Error& error);
  void log_failure(const Error& error) EXCLUDES(mutex);
  std::vector<JobPtr> settle(const Digest& digest, const std::optional<Location>& location)
      EXCLUDES(mutex);
  void add_to_group(uint64_t sequence) REQUIRES(mutex);

  // Constant after construction.
  const std::string directory;
  Index& index;
  BufferPool& buffers;
  ThreadPool& pool;
  const CodecChoice codec;
  const uint64_t pack_bytes;
  Evictor* const evictor;
  Counter &stored, &deduplicated, &bytes_deduplicated, &unstored, &read_corrupt, &plain_written,
      &encoded_written, &deferred, &recoded;
  PackReader reader;  // synchronises itself

  std::atomic<uint64_t> queued{0};
  std::atomic<uint64_t> waiting_for_pool{0};  // those of them that no thread has encoded yet

  // Confined to the writer's thread.
  std::shared_ptr<PackWriter> pack;
  uint64_t reserved_end = 0;  // of the pack: the disk has blocks for it up to there

  // Confined to the committer's thread.
  std::set<uint32_t> failed_packs;

  // Guarded by mutex.  Leaf lock: no I/O and no callback while it is held.
  mutable Mutex mutex;
  CondVar writer_wake, committer_wake, idle, settled;
  uint64_t next_sequence GUARDED_BY(mutex) = 0;
  std::set<uint64_t> unwritten GUARDED_BY(mutex);    // not yet in a group
  std::set<uint64_t> unpublished GUARDED_BY(mutex);  // not yet published or failed
  size_t pool_tasks GUARDED_BY(mutex) = 0;
  // Chunks between hashing and publication: where they are, or who waits to hear.
  struct Pending {
    std::optional<Location> location;
    std::vector<JobPtr> waiters;
  };
  std::unordered_map<Digest, Pending, DigestHash> pending GUARDED_BY(mutex);
  std::deque<Item> items GUARDED_BY(mutex);
  // Durable; encoded one at a time while nothing is put.
  std::deque<Unencoded> unencoded GUARDED_BY(mutex);
  bool stopping GUARDED_BY(mutex) = false;
  Group open GUARDED_BY(mutex);
  bool rotate GUARDED_BY(mutex) = false;  // the pack cannot be trusted with more
  std::deque<Group> closed GUARDED_BY(mutex);
  size_t closed_extents GUARDED_BY(mutex) = 0;
  uint64_t groups_closed GUARDED_BY(mutex) = 0, groups_settled GUARDED_BY(mutex) = 0;
  std::vector<Flusher> flushers GUARDED_BY(mutex);
  SteadyTime next_log GUARDED_BY(mutex);
  bool writer_stops GUARDED_BY(mutex) = false;
  bool committer_stops GUARDED_BY(mutex) = false;

  // Last: their threads use all of the above.
  ThreadPool writer_thread{"cake-write", 1};
  ThreadPool committer_thread{"cake-commit", 1};
};

// --- Pool threads: hash, look for the digest, encode ---

void ChunkStore::Impl::process(const JobPtr& job) {
  const ByteSpan plain = job->request.plain->bytes();
  job->digest = job->request.digest ? *job->request.digest : blake3(plain);
  std::optional<Location> known;
  bool too_many = false;
  {
    MutexLock lock(mutex);
    const auto [found, fresh] = pending.try_emplace(job->digest);
    if (!fresh && !found->second.location) {
      // Someone is at it; their result will be ours.
      job->request.plain.reset();
      queued -= job->plain_bytes;
      found->second.waiters.push_back(job);
      return;
    }
    if (!fresh) known = found->second.location;
    too_many = closed_extents > kMaxUnpublished;
  }
  if (known) return add_deduped(job, *known);

  Result<std::vector<std::optional<Location>>> stored_at =
      too_many ? Error{Errc::io, "the index does not take rows"}
               : index.find_chunks(std::span(&job->digest, 1));
  if (!stored_at) {
    for (const JobPtr& waiter : settle(job->digest, std::nullopt)) fail(waiter, stored_at.error());
    return fail(job, stored_at.error());
  }
  if (const std::optional<Location>& location = (*stored_at)[0]) {
    for (const JobPtr& waiter : settle(job->digest, std::nullopt)) add_deduped(waiter, *location);
    return add_deduped(job, *location);
  }
  encode(job);
}

void ChunkStore::Impl::encode(const JobPtr& job) {
  const ByteSpan plain = job->request.plain->bytes();
  Item item;
  item.job = job;
  item.sequence = job->sequence;
  item.header.kind = EntryKind::chunk;
  item.header.dtype = job->request.dtype;
  item.header.plain_bytes = item.header.payload_bytes = job->plain_bytes;
  item.header.ordinal = job->request.ordinal;
  item.header.checksum = xxh3(plain);
  item.header.digest = job->digest;
  item.header.content = job->content;
  const Codec& chosen = choose_codec(codec, job->request.dtype);
  // Processors are short: what has arrived goes to the disk as it is, so that neither memory fills
  // nor readahead shrinks, and is encoded when there is time.
  const bool is_behind = waiting_for_pool > buffers.budget().limit() / kBehindShare;
  if (chosen.id() != CodecId::raw && is_behind) {
    job->encode_later = true;
    deferred.add();
  } else if (chosen.id() != CodecId::raw) {
    // An encoder that fails costs disk, not the chunk.
    auto encoded = chosen.encode(plain, job->request.dtype);
    if (encoded && *encoded && (*encoded)->size() < plain.size()) {
      item.header.codec = chosen.id();
      item.encoded = std::move(**encoded);
      item.header.payload_bytes = static_cast<uint32_t>(item.encoded.size());
    }
  }
  submit(std::move(item));
}

// False when it stays as it is: gone or moved meanwhile, or not smaller this way.
Result<bool> ChunkStore::Impl::recode(const Unencoded& chunk) {
  const auto found = CAKE_TRY(index.find_chunks(std::span(&chunk.header.digest, 1)));
  if (found[0] != chunk.location) return false;
  // Chunks of a materialized file are raw, and stay where they are.
  const std::optional<Index::PackRow> row = CAKE_TRY(index.find_pack(chunk.location.pack));
  if (!row || !row->name.ends_with(".pack")) return false;
  const Codec& chosen = choose_codec(codec, chunk.header.dtype);
  const bool wants_raw = chosen.id() == CodecId::raw;
  if (wants_raw && chunk.location.codec == CodecId::raw) return false;
  const ChunkPtr plain = CAKE_TRY(read(chunk.location));
  Item item;
  item.header = chunk.header;
  item.replaces = chunk.location;
  if (wants_raw) {
    item.encoded = to_buffer(plain->bytes());
  } else {
    std::optional<Buffer> encoded = CAKE_TRY(chosen.encode(plain->bytes(), chunk.header.dtype));
    if (!encoded || encoded->size() >= chunk.location.encoded_bytes) return false;
    item.encoded = std::move(*encoded);
  }
  item.header.codec = chosen.id();
  item.header.payload_bytes = static_cast<uint32_t>(item.encoded.size());
  submit_new(std::move(item));
  recoded.add();
  return true;
}

// The next chunk to recode, when nobody else wants the pool; counts as one of its tasks.
std::optional<Unencoded> ChunkStore::Impl::take_unencoded() {
  if (stopping || unencoded.empty() || pool_tasks > 0 || items.size() >= kBatchEntries / 8)
    return std::nullopt;
  Unencoded next = std::move(unencoded.front());
  unencoded.pop_front();
  pool_tasks++;
  return next;
}

void ChunkStore::Impl::post_recode(Unencoded chunk) {
  pool.post(ThreadPool::Priority::background, [this, chunk = std::move(chunk)] {
    const Result<bool> done = recode(chunk);
    if (!done) log_warn(done.error().with("a chunk stays unencoded").message);
    end_pool_task();
  });
}

void ChunkStore::Impl::recode_when_idle() {
  std::optional<Unencoded> next;
  {
    MutexLock lock(mutex);
    next = take_unencoded();
  }
  if (next) post_recode(std::move(*next));
}

// The last thing that a task does: without a task left, this may be destroyed.
void ChunkStore::Impl::end_pool_task() {
  std::optional<Unencoded> next;
  {
    MutexLock lock(mutex);
    pool_tasks--;
    next = take_unencoded();
    if (!next) idle.notify_all();
  }
  if (next) post_recode(std::move(*next));
}

// Gives the disk back what a chunk's row pointed to before.  Who has read the row reads zeros now,
// which its checksum tells, and asks again.
void ChunkStore::Impl::punch(const Location& location) {
  const auto punch = [&]() -> Status {
    const std::optional<Index::PackRow> row = CAKE_TRY(index.find_pack(location.pack));
    if (!row) return {};
    const File file = CAKE_TRY(File::open(cat(directory, "/", row->name), File::Mode::read_write));
    return file.punch_hole(
        {location.offset - kEntryHeaderBytes, kEntryHeaderBytes + location.encoded_bytes});
  };
  // Costs disk until the pack goes, nothing else.
  const Status punched = punch();
  if (!punched) log_warn(punched.error().message);
}

Result<ChunkPtr> ChunkStore::Impl::read(const Location& location) {
  CAKE_TRY(check_location(location));
  auto payload =
      CAKE_TRY(reader.read(location.pack, location.offset, location.encoded_bytes, buffers));
  return decode_chunk(location, buffers, std::move(payload));
}

// As submit, for what no put has counted.
void ChunkStore::Impl::submit_new(Item item) {
  {
    MutexLock lock(mutex);
    item.sequence = next_sequence++;
    unwritten.insert(item.sequence);
    unpublished.insert(item.sequence);
    items.push_back(std::move(item));
  }
  writer_wake.notify_one();
}

void ChunkStore::Impl::submit(Item item) {
  {
    MutexLock lock(mutex);
    items.push_back(std::move(item));
  }
  writer_wake.notify_one();
}

void ChunkStore::Impl::record(EntryKind kind, const Digest& content, Buffer payload) {
  Item item;
  item.header.kind = kind;
  item.header.payload_bytes = item.header.plain_bytes = static_cast<uint32_t>(payload.size());
  item.header.checksum = xxh3(payload);
  item.header.digest = blake3(payload);
  item.header.content = content;
  item.header.written_at = unix_microseconds();
  item.encoded = std::move(payload);
  submit_new(std::move(item));
}

// --- Ends of a put ---

// The chunk's place is known, or it will have none: takes whoever waited for it.
std::vector<JobPtr> ChunkStore::Impl::settle(const Digest& digest,
                                             const std::optional<Location>& location) {
  MutexLock lock(mutex);
  const auto found = pending.find(digest);
  CAKE_CHECK(found != pending.end());
  std::vector<JobPtr> waiters = std::move(found->second.waiters);
  found->second.waiters.clear();
  if (location)
    found->second.location = location;
  else
    pending.erase(found);
  return waiters;
}

void ChunkStore::Impl::add_to_group(uint64_t sequence) {
  if (open.sequences.empty()) open.since = steady_now();
  open.sequences.push_back(sequence);
  unwritten.erase(sequence);
}

void ChunkStore::Impl::add_deduped(const JobPtr& job, const Location& location) {
  deduplicated.add();
  bytes_deduplicated.add(job->plain_bytes);
  if (job->request.plain) queued -= job->plain_bytes;
  job->request.plain.reset();
  if (job->request.done) job->request.done(job->digest, location);
  {
    MutexLock lock(mutex);
    add_to_group(job->sequence);
    open.extents.push_back(
        {job->request.content, job->request.ordinal, job->digest, std::nullopt, job->plain_bytes});
    if (!job->content.is_zero())
      open.deduped[job->content].push_back({job->request.ordinal, job->plain_bytes, job->digest});
  }
  writer_wake.notify_one();
}

void ChunkStore::Impl::fail(const JobPtr& job, const Error& error) {
  unstored.add();
  log_failure(error);
  if (job->request.plain) queued -= job->plain_bytes;
  job->request.plain.reset();
  if (job->request.done) job->request.done(job->digest, error);
  {
    MutexLock lock(mutex);
    unwritten.erase(job->sequence);
    unpublished.erase(job->sequence);
  }
  writer_wake.notify_one();
  committer_wake.notify_one();
}

void ChunkStore::Impl::log_failure(const Error& error) {
  {
    MutexLock lock(mutex);
    if (steady_now() < next_log) return;
    next_log = steady_now() + kLogInterval;
  }
  log_error(cat("chunks are served but not stored: ", error.message, " (", unstored.value(),
                " so far; logged once a minute)"));
}

// --- Writer: appends in batches, closes groups ---

bool ChunkStore::Impl::must_close() const {
  if (open.is_empty()) return false;
  if (open.bytes >= kGroupBytes || steady_now() >= open.since + kGroupDelay) return true;
  if (writer_stops && items.empty()) return true;
  for (const Flusher& flusher : flushers)
    if (has_passed(flusher, unwritten)) return true;
  return false;
}

ChunkStore::Impl::Work ChunkStore::Impl::wait_for_work() {
  Work work;
  const bool has_room = pack != nullptr && reserved_end > pack->end();
  const SteadyTime quiet_at = steady_now() + kQuiet;
  MutexLock lock(mutex);
  while (items.empty() && !must_close() && !writer_stops) {
    if (!open.is_empty()) {
      writer_wake.wait_until(mutex, open.since + kGroupDelay);
    } else if (!has_room) {
      writer_wake.wait(mutex);
    } else if (!writer_wake.wait_until(mutex, quiet_at)) {
      work.quiet = true;
      return work;
    }
  }
  work.rotate = std::exchange(rotate, false);
  if (must_close()) work.close = std::exchange(open, Group());
  uint64_t bytes = 0;
  while (!items.empty() && bytes < kBatchBytes && work.items.size() < kBatchEntries) {
    bytes += items.front().payload().size();
    work.items.push_back(std::move(items.front()));
    items.pop_front();
  }
  work.stop = writer_stops && work.items.empty() && !work.close;
  return work;
}

void ChunkStore::Impl::run_writer() {
  while (true) {
    Work work = wait_for_work();
    if (work.quiet || work.stop) give_back_room();
    if (work.stop) return;
    if (work.close) close(std::move(*work.close));
    if (pack != nullptr && (work.rotate || pack->end() > pack_bytes)) {
      Group last;
      {
        MutexLock lock(mutex);
        last = std::exchange(open, Group());
      }
      last.seal = true;
      close(std::move(last));
      give_back_room();
      pack.reset();
    }
    if (!work.items.empty()) {
      write(std::move(work.items));
      recode_when_idle();
    }
  }
}

// Goes on in a pack that a writer left unsealed, or starts one.
Status ChunkStore::Impl::acquire_pack() {
  if (pack != nullptr) return {};
  for (const Index::PackRow& row : CAKE_TRY(index.list_packs())) {
    if (row.sealed) continue;
    auto locked = lock_pack(directory, index, row);
    // A damaged pack was logged when the store was opened.
    if (!locked || !*locked) continue;
    LockedPack& found = **locked;
    if (CAKE_TRY(found.file.size()) > found.row.committed_bytes)
      CAKE_TRY(salvage(index, buffers, std::span(&found, 1)));
    if (found.row.committed_bytes > pack_bytes) {
      CAKE_TRY(index.seal_pack(found.row.id, found.row.committed_bytes));
      continue;
    }
    // A killed writer's space.
    if (evictor != nullptr && evictor->is_limited())
      CAKE_TRY(Evictor::release(found.file, found.row.committed_bytes));
    pack = std::make_shared<PackWriter>(std::move(found));
    return {};
  }
  pack = std::make_shared<PackWriter>(CAKE_TRY(create_pack(directory, index)));
  return {};
}

// Disk space for what comes next.
Status ChunkStore::Impl::take_room(std::span<const NewEntry> entries) {
  const uint64_t end = pack->end_after(entries);
  if (evictor == nullptr || !evictor->is_limited() || end <= reserved_end) return {};
  reserved_end = CAKE_TRY(evictor->reserve(pack->file(), pack->end(), end - pack->end(),
                                           [this] { publish_written(); }));
  return {};
}

void ChunkStore::Impl::give_back_room() {
  if (pack != nullptr && reserved_end > pack->end()) {
    const Status released = Evictor::release(pack->file(), pack->end());
    if (!released) log_failure(released.error());
  }
  reserved_end = 0;
}

// Records are small and few, and a lost index needs them: they do not wait for room that chunks
// lack.
void ChunkStore::Impl::write(std::vector<Item> batch) {
  std::vector<Item> records;
  const auto first =
      std::stable_partition(batch.begin(), batch.end(), std::not_fn(&Item::is_record));
  std::move(first, batch.end(), std::back_inserter(records));
  batch.erase(first, batch.end());
  if (!records.empty()) write_batch(std::move(records));
  if (!batch.empty()) write_batch(std::move(batch));
}

void ChunkStore::Impl::write_batch(std::vector<Item> batch) {
  const auto append = [&]() -> Result<std::vector<uint64_t>> {
    CAKE_TRY(acquire_pack());
    std::vector<NewEntry> entries;
    for (const Item& item : batch) entries.push_back({item.header, item.payload()});
    if (!batch.front().is_record()) CAKE_TRY(take_room(entries));
    return pack->append(entries);
  };
  const Result<std::vector<uint64_t>> offsets = append();
  fault_point("pack.appended");
  for (size_t i = 0; i < batch.size(); i++) {
    Item& item = batch[i];
    if (item.job == nullptr) {
      // A chunk that could not be recoded is there all the same.
      if (!offsets && item.is_record()) log_failure(offsets.error());
      MutexLock lock(mutex);
      add_to_group(item.sequence);
      open.bytes += item.encoded.size();
      if (offsets && item.replaces)
        open.extents.push_back(
            {0, 0, item.header.digest,
             Location{pack->id(), (*offsets)[i], item.header.payload_bytes, item.header.plain_bytes,
                      item.header.codec, item.header.checksum},
             item.header.plain_bytes, item.replaces});
      continue;
    }
    if (!offsets) {
      for (const JobPtr& waiter : settle(item.header.digest, std::nullopt))
        fail(waiter, offsets.error());
      fail(item.job, offsets.error());
      continue;
    }
    const Location location{
        pack->id(),        (*offsets)[i],       item.header.payload_bytes, item.header.plain_bytes,
        item.header.codec, item.header.checksum};
    stored.add();
    plain_written.add(location.plain_bytes);
    encoded_written.add(location.encoded_bytes);
    queued -= item.job->plain_bytes;
    item.job->request.plain.reset();
    if (item.job->request.done) item.job->request.done(item.header.digest, location);
    {
      MutexLock lock(mutex);
      add_to_group(item.sequence);
      open.bytes += location.encoded_bytes;
      open.extents.push_back({item.job->request.content, item.job->request.ordinal,
                              item.header.digest, location, location.plain_bytes});
      if (item.job->encode_later) open.unencoded.push_back({item.header, location});
    }
    for (const JobPtr& waiter : settle(item.header.digest, location)) add_deduped(waiter, location);
  }
}

// Records what was deduplicated, so that a lost index can be made again, and hands the group over.
void ChunkStore::Impl::close(Group group) {
  if (!group.deduped.empty()) {
    std::vector<Buffer> payloads;
    std::vector<NewEntry> entries;
    for (const auto& [content, items_of_content] : group.deduped)
      payloads.push_back(encode_segment_record(items_of_content));
    size_t i = 0;
    for (const auto& [content, items_of_content] : group.deduped) {
      const Buffer& payload = payloads[i++];
      EntryHeader header;
      header.kind = EntryKind::recipe_segment;
      header.payload_bytes = header.plain_bytes = static_cast<uint32_t>(payload.size());
      header.checksum = xxh3(payload);
      header.digest = blake3(payload);
      header.content = content;
      entries.push_back({header, payload});
    }
    const auto append = [&]() -> Status {
      CAKE_TRY(acquire_pack());
      CAKE_TRY(pack->append(entries));
      return {};
    };
    // The index has the digests all the same; only a lost index would miss them.
    const Status appended = append();
    if (!appended) log_failure(appended.error());
    fault_point("pack.segments_appended");
  }
  group.pack = pack;
  group.end = pack != nullptr ? pack->end() : 0;
  {
    MutexLock lock(mutex);
    closed_extents += group.extents.size();
    groups_closed++;
    closed.push_back(std::move(group));
  }
  committer_wake.notify_one();
}

// Gives rows to what has been written, as far as the index takes them.
void ChunkStore::Impl::publish_written() {
  Group group;
  {
    MutexLock lock(mutex);
    group = std::exchange(open, Group());
  }
  if (!group.is_empty()) close(std::move(group));
  const SteadyTime deadline = steady_now() + kPublishPatience;
  MutexLock lock(mutex);
  while (groups_settled < groups_closed)
    if (!settled.wait_until(mutex, deadline)) break;
}

// --- Committer: bytes durable, then rows ---

ChunkStore::Impl::Outcome ChunkStore::Impl::commit(const Group& group) {
  const uint32_t id = group.pack != nullptr ? group.pack->id() : 0;
  if (group.pack != nullptr) {
    // One failed fdatasync condemns the pack: the kernel may have dropped any of its pages, and
    // says so once (see fsync(2), "ERRORS").
    const Status synced = failed_packs.contains(id)
                              ? Error{Errc::io, group.pack->path() + " was given up"}
                              : group.pack->sync();
    if (!synced) {
      give_up(id);
      return {synced, Outcome::lost};
    }
    fault_point("pack.synced");
  }
  Status published = index.publish(group.extents, id, group.end);
  if (!published) return {published, Outcome::refused};
  fault_point("index.published");
  if (group.seal && id != 0) {
    published = index.seal_pack(id, group.end);
    fault_point("pack.sealed");
  }
  return {published, published ? Outcome::committed : Outcome::refused};
}

// Sealed, so that nobody salvages bytes that only the page cache has.
void ChunkStore::Impl::give_up(uint32_t pack_id) {
  if (!failed_packs.insert(pack_id).second) return;
  const Status sealed = index.seal_pack(pack_id, 0);
  if (!sealed) log_failure(sealed.error());
  MutexLock lock(mutex);
  rotate = true;
}

// Those whose puts are all done with; or all.
std::vector<Flusher> ChunkStore::Impl::take_flushers(bool all) {
  MutexLock lock(mutex);
  std::vector<Flusher> ready, others;
  for (Flusher& flusher : flushers)
    (all || has_passed(flusher, unpublished) ? ready : others).push_back(std::move(flusher));
  flushers = std::move(others);
  return ready;
}

void ChunkStore::Impl::run_committer() {
  SteadyTime not_before = SteadyTime::min();
  while (true) {
    for (Flusher& flusher : take_flushers(false)) flusher.done({});
    Group group;
    {
      MutexLock lock(mutex);
      bool ready = false;
      while (!ready) {
        for (const Flusher& flusher : flushers) ready = ready || has_passed(flusher, unpublished);
        // A flush does not wait for the next try: it is told how this one goes.
        const bool may_commit = steady_now() >= not_before || !flushers.empty();
        ready = ready || committer_stops || (!closed.empty() && may_commit);
        if (ready) break;
        if (closed.empty())
          committer_wake.wait(mutex);
        else
          committer_wake.wait_until(mutex, not_before);
      }
      if (closed.empty() || (committer_stops && steady_now() < not_before)) {
        if (committer_stops) return;
        continue;
      }
      group = std::move(closed.front());
      closed.pop_front();
      closed_extents -= group.extents.size();
    }
    const auto [status, outcome] = commit(group);
    std::vector<Location> replaced;
    if (outcome == Outcome::lost)
      for (const PublishedExtent& extent : group.extents)
        if (extent.location) unstored.add();
    if (!status) log_failure(status.error());
    {
      MutexLock lock(mutex);
      if (outcome == Outcome::refused) {
        not_before = steady_now() + kRetryDelay;
        closed_extents += group.extents.size();
        closed.push_front(std::move(group));
      } else {
        for (const PublishedExtent& extent : group.extents)
          if (extent.location && !extent.replaces) pending.erase(extent.digest);
        if (outcome == Outcome::committed) {
          for (Unencoded& chunk : group.unencoded)
            if (unencoded.size() < kMaxUnencoded) unencoded.push_back(std::move(chunk));
          for (const PublishedExtent& extent : group.extents)
            if (extent.replaces) replaced.push_back(*extent.replaces);
        }
        for (const uint64_t sequence : group.sequences) unpublished.erase(sequence);
        groups_settled++;
        settled.notify_all();
      }
    }
    for (const Location& location : replaced) punch(location);
    recode_when_idle();
    if (!status)
      for (Flusher& flusher : take_flushers(true)) flusher.done(status);
  }
}

// --- ChunkStore ---

ChunkStore::ChunkStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
  Impl* const self = impl_.get();
  self->writer_thread.post(ThreadPool::Priority::demand, [self] { self->run_writer(); });
  self->committer_thread.post(ThreadPool::Priority::demand, [self] { self->run_committer(); });
}

Result<std::unique_ptr<ChunkStore>> ChunkStore::open(const std::string& directory, Index& index,
                                                     BufferPool& buffers, ThreadPool& pool,
                                                     CodecChoice codec, Metrics& metrics,
                                                     uint64_t pack_bytes, Evictor* evictor) {
  const std::string packs = directory + "/packs";
  CAKE_TRY(make_directories(packs, 0700));
  const Status salvaged = salvage_directory(packs, index, buffers);
  // A full disk must not keep anyone from reading; the next writer tries again.
  if (!salvaged) log_warn(salvaged.error().with("chunks left unsalvaged in " + packs).message);
  auto impl =
      std::make_unique<Impl>(packs, index, buffers, pool, codec, metrics, pack_bytes, evictor);
  return std::unique_ptr<ChunkStore>(new ChunkStore(std::move(impl)));
}

ChunkStore::~ChunkStore() {
  {
    MutexLock lock(impl_->mutex);
    impl_->stopping = true;
  }
  const Status flushed = flush();
  if (!flushed) log_error(flushed.error().with("closing the store").message);
  {
    MutexLock lock(impl_->mutex);
    // A task that has handed its chunk on may still be returning.
    while (impl_->pool_tasks > 0) impl_->idle.wait(impl_->mutex);
    impl_->writer_stops = true;
    impl_->committer_stops = true;
  }
  impl_->writer_wake.notify_all();
  impl_->committer_wake.notify_all();
}

Result<ChunkPtr> ChunkStore::read(const Location& location) {
  Result<ChunkPtr> plain = impl_->read(location);
  if (!plain && plain.error().code == Errc::corrupt) impl_->read_corrupt.add();
  return plain;
}

void ChunkStore::put(PutRequest request) {
  CAKE_CHECK(request.plain != nullptr && request.plain->size() <= kChunkBytes);
  auto job = std::make_shared<Job>();
  job->request = std::move(request);
  job->plain_bytes = static_cast<uint32_t>(job->request.plain->size());
  // Without a name the chunk is stored all the same; a lost index would not know whose it was.
  if (!parse_hex(job->request.content_name, job->content.bytes)) job->content = Digest{};
  Impl* const impl = impl_.get();
  impl->queued += job->plain_bytes;
  impl->waiting_for_pool += job->plain_bytes;
  {
    MutexLock lock(impl->mutex);
    job->sequence = impl->next_sequence++;
    impl->unwritten.insert(job->sequence);
    impl->unpublished.insert(job->sequence);
    impl->pool_tasks++;
  }
  impl->pool.post(ThreadPool::Priority::background, [impl, job] {
    impl->process(job);
    impl->waiting_for_pool -= job->plain_bytes;
    impl->end_pool_task();
  });
}

Result<bool> ChunkStore::recode(const RecodeRequest& request) {
  Unencoded chunk;
  chunk.header.kind = EntryKind::chunk;
  chunk.header.dtype = request.dtype;
  chunk.header.plain_bytes = request.location.plain_bytes;
  chunk.header.ordinal = request.ordinal;
  chunk.header.checksum = request.location.checksum;
  chunk.header.digest = request.digest;
  if (!parse_hex(request.content_name, chunk.header.content.bytes))
    return Error{Errc::invalid, "not a content's name: " + request.content_name};
  chunk.location = request.location;
  return impl_->recode(chunk);
}

uint64_t ChunkStore::queued_bytes() const {
  return impl_->queued.load(std::memory_order_relaxed);
}

void ChunkStore::flush_async(std::function<void(Status)> done) {
  {
    MutexLock lock(impl_->mutex);
    impl_->flushers.push_back({impl_->next_sequence, std::move(done)});
  }
  impl_->writer_wake.notify_one();
  impl_->committer_wake.notify_one();
}

Status ChunkStore::flush() {
  Mutex mutex;
  CondVar wake;
  std::optional<Status> result;
  flush_async([&](Status status) {
    MutexLock lock(mutex);
    result = std::move(status);
    wake.notify_one();
  });
  MutexLock lock(mutex);
  while (!result) wake.wait(mutex);
  return *result;
}

Status ChunkStore::record_snapshot(const std::string& source, const Snapshot& snapshot) {
  Buffer payload = encode_snapshot_record(source, snapshot);
  if (payload.size() > kMaxPayloadBytes)
    return Error{Errc::invalid, cat("snapshot ", snapshot.repo().id, "@", snapshot.commit(),
                                    " is too large to be recorded")};
  impl_->record(EntryKind::snapshot, Digest{}, std::move(payload));
  return {};
}

Status ChunkStore::record_ref(const std::string& source, const RepoName& repo, const RefRow& ref) {
  impl_->record(EntryKind::ref, Digest{}, encode_ref_record({source, repo, ref}));
  return {};
}

Status ChunkStore::record_recipe(const std::string& content_name, const RecipeRow& recipe,
                                 uint64_t file_bytes) {
  const std::optional<Digest> content = Digest::from_hex(content_name);
  if (!content) return Error{Errc::invalid, "not a content's name: " + content_name};
  Buffer payload = encode_recipe_record(recipe, file_bytes);
  if (payload.size() > kMaxPayloadBytes) return Error{Errc::invalid, "recipe is too large"};
  impl_->record(EntryKind::recipe, *content, std::move(payload));
  return {};
}

Status ChunkStore::record_segment(const std::string& content_name,
                                  const std::vector<SegmentItem>& items) {
  const std::optional<Digest> content = Digest::from_hex(content_name);
  if (!content) return Error{Errc::invalid, "not a content's name: " + content_name};
  impl_->record(EntryKind::recipe_segment, *content, encode_segment_record(items));
  return {};
}

Status ChunkStore::record_pin(const std::string& source, const RepoName& repo,
                              const std::string& revision, bool is_pinned) {
  impl_->record(EntryKind::pin, Digest{}, encode_pin_record({source, repo, revision, is_pinned}));
  return {};
}

Status ChunkStore::record_removal(const std::string& source, const RepoName& repo,
                                  const std::string& commit) {
  impl_->record(EntryKind::removal, Digest{}, encode_removal_record({source, repo, commit}));
  return {};
}

std::string content_pack_name(const std::string& source, const ContentKey& key) {
  Buffer bytes(4);
  store_le(bytes.data(), static_cast<uint32_t>(source.size()));
  const auto add = [&](ByteSpan more) { bytes.insert(bytes.end(), more.begin(), more.end()); };
  add(as_bytes(source));
  bytes.push_back(static_cast<std::byte>(key.kind));
  add(as_bytes(key.id));
  return blake3(bytes).hex();
}

}  // namespace cake
