#include "store/chunk_store.h"

#include <atomic>
#include <chrono>
#include <utility>

#include "store/base/log.h"
#include "store/base/mutex.h"
#include "store/committer.h"
#include "store/pending_puts.h"
#include "store/put_queue.h"
#include "store/put_writer.h"
#include "store/recoder.h"
#include "store/salvage.h"

namespace cake {

namespace {

// Finer than unix_now(): two facts about one repo can be a millisecond apart.
int64_t unix_microseconds() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

// What runs on the pool's threads, and the parts that take over from there.
struct ChunkStore::Impl {
  Impl(const std::string& packs, Index& index_in, BufferPool& buffers_in, ThreadPool& pool_in,
       CodecChoice codec_in, Metrics& metrics, uint64_t pack_bytes, Evictor* evictor)
      : index(index_in),
        buffers(buffers_in),
        pool(pool_in),
        codec(codec_in),
        read_corrupt(metrics.counter("store.reads_corrupt")),
        deferred(metrics.counter("store.chunks_unencoded")),
        reader(packs, index),
        puts(queue, metrics),
        recoder(codec, index, reader, buffers, pool, queue, metrics),
        writer({packs, pack_bytes, evictor}, index, buffers, queue, puts, recoder),
        committer(packs, index, queue, puts, recoder) {}

  void process(const PutJobPtr& job);
  void encode(const PutJobPtr& job);
  void record(EntryKind kind, const Digest& content, Buffer payload);

  // Constant after construction.
  Index& index;
  BufferPool& buffers;
  ThreadPool& pool;
  const CodecChoice codec;
  Counter &read_corrupt, &deferred;

  std::atomic<uint64_t> waiting_for_pool{0};  // plain bytes that no thread has encoded yet

  // They synchronise themselves; each uses only those before it.
  PackReader reader;
  PutQueue queue;
  PendingPuts puts;
  Recoder recoder;
  PutWriter writer;
  Committer committer;
};

// --- Pool threads: hash, look for the digest, encode ---

void ChunkStore::Impl::process(const PutJobPtr& job) {
  job->digest = job->request.digest ? *job->request.digest : blake3(job->request.plain->bytes());
  if (!puts.join(job)) return;
  Result<std::vector<std::optional<Location>>> stored_at =
      queue.is_choked() ? Error{Errc::io, "the index does not take rows"}
                        : index.find_chunks(std::span(&job->digest, 1));
  if (!stored_at) return puts.end_failed(job, stored_at.error());
  if (const std::optional<Location>& location = (*stored_at)[0])
    return puts.end_found(job, *location);
  encode(job);
}

void ChunkStore::Impl::encode(const PutJobPtr& job) {
  const ByteSpan plain = job->request.plain->bytes();
  PutItem item;
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
  const bool is_behind = waiting_for_pool > buffers.budget().limit() / PutQueue::kBehindShare;
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
  queue.submit(std::move(item));
}

void ChunkStore::Impl::record(EntryKind kind, const Digest& content, Buffer payload) {
  PutItem item;
  item.header.kind = kind;
  item.header.payload_bytes = item.header.plain_bytes = static_cast<uint32_t>(payload.size());
  item.header.checksum = xxh3(payload);
  item.header.digest = blake3(payload);
  item.header.content = content;
  item.header.written_at = unix_microseconds();
  item.encoded = std::move(payload);
  queue.submit_new(std::move(item));
}

// --- ChunkStore ---

ChunkStore::ChunkStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

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
  impl_->recoder.stop();
  const Status flushed = flush();
  if (!flushed) log_error(flushed.error().with("closing the store").message);
  // A task that has handed its chunk on may still be returning.
  impl_->recoder.wait_for_tasks();
  impl_->queue.stop();
}

Result<ChunkPtr> ChunkStore::read(const Location& location) {
  Result<ChunkPtr> plain = read_chunk(location, impl_->buffers, impl_->reader);
  if (!plain && plain.error().code == Errc::corrupt) impl_->read_corrupt.add();
  return plain;
}

void ChunkStore::close_removed() {
  impl_->reader.close_removed();
}

void ChunkStore::put(PutRequest request) {
  CAKE_CHECK(request.plain != nullptr && request.plain->size() <= kChunkBytes);
  auto job = std::make_shared<PutJob>();
  job->request = std::move(request);
  job->plain_bytes = static_cast<uint32_t>(job->request.plain->size());
  // Without a name the chunk is stored all the same; a lost index would not know whose it was.
  if (!parse_hex(job->request.content_name, job->content.bytes)) job->content = Digest{};
  Impl* const impl = impl_.get();
  impl->puts.begin(*job);
  impl->waiting_for_pool += job->plain_bytes;
  impl->recoder.begin_task();
  job->sequence = impl->queue.announce();
  impl->pool.post(ThreadPool::Priority::background, [impl, job] {
    impl->process(job);
    impl->waiting_for_pool -= job->plain_bytes;
    impl->recoder.end_task();
  });
}

Result<bool> ChunkStore::recode(const RecodeRequest& request) {
  UnencodedChunk chunk;
  chunk.header.kind = EntryKind::chunk;
  chunk.header.dtype = request.dtype;
  chunk.header.plain_bytes = request.location.plain_bytes;
  chunk.header.ordinal = request.ordinal;
  chunk.header.checksum = request.location.checksum;
  chunk.header.digest = request.digest;
  if (!parse_hex(request.content_name, chunk.header.content.bytes))
    return Error{Errc::invalid, "not a content's name: " + request.content_name};
  chunk.location = request.location;
  return impl_->recoder.recode(chunk);
}

uint64_t ChunkStore::queued_bytes() const {
  return impl_->puts.queued_bytes();
}

void ChunkStore::flush_async(std::function<void(Status)> done) {
  impl_->queue.flush(std::move(done));
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
