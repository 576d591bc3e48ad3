#include "store/recoder.h"

#include <utility>

#include "store/base/log.h"
#include "store/salvage.h"

namespace cake {

namespace {

// Of what was stored unencoded for want of processors, so much is remembered.
constexpr size_t kMaxUnencoded = 65'536;
// With more before it in the queue, a recoded chunk would only wait there.
constexpr size_t kMaxWaiting = PutQueue::kBatchEntries / 8;

}  // namespace

Recoder::Recoder(CodecChoice codec, Index& index, PackReader& reader, BufferPool& buffers,
                 ThreadPool& pool, PutQueue& queue, Metrics& metrics)
    : codec_(codec),
      index_(index),
      reader_(reader),
      buffers_(buffers),
      pool_(pool),
      queue_(queue),
      recoded_(metrics.counter("store.chunks_recoded")) {}

// --- When ---

// The next chunk to recode, when nobody else wants the pool; counts as one of its tasks.
std::optional<UnencodedChunk> Recoder::take_next() {
  if (stopping_ || chunks_.empty() || tasks_ > 0) return std::nullopt;
  if (queue_.waiting_items() >= kMaxWaiting) return std::nullopt;
  const UnencodedChunk next = chunks_.front();
  chunks_.pop_front();
  tasks_++;
  return next;
}

void Recoder::post(UnencodedChunk chunk) {
  pool_.post(ThreadPool::Priority::background, [this, chunk] {
    const Result<bool> done = recode(chunk);
    if (!done) log_warn(done.error().with("a chunk stays unencoded").message);
    end_task();
  });
}

void Recoder::begin_task() {
  MutexLock lock(mutex_);
  tasks_++;
}

void Recoder::end_task() {
  std::optional<UnencodedChunk> next;
  {
    MutexLock lock(mutex_);
    tasks_--;
    next = take_next();
    if (!next) idle_.notify_all();
  }
  if (next) post(*next);
}

void Recoder::add(std::vector<UnencodedChunk> chunks) {
  MutexLock lock(mutex_);
  for (const UnencodedChunk& chunk : chunks)
    if (chunks_.size() < kMaxUnencoded) chunks_.push_back(chunk);
}

void Recoder::recode_when_idle() {
  std::optional<UnencodedChunk> next;
  {
    MutexLock lock(mutex_);
    next = take_next();
  }
  if (next) post(*next);
}

void Recoder::stop() {
  MutexLock lock(mutex_);
  stopping_ = true;
}

void Recoder::wait_for_tasks() {
  MutexLock lock(mutex_);
  while (tasks_ > 0) idle_.wait(mutex_);
}

// --- How ---

Result<bool> Recoder::recode(const UnencodedChunk& chunk) {
  const auto found = CAKE_TRY(index_.find_chunks(std::span(&chunk.header.digest, 1)));
  if (found[0] != chunk.location) return false;
  // Chunks of a materialized file are raw, and stay where they are.
  const std::optional<Index::PackRow> row = CAKE_TRY(index_.find_pack(chunk.location.pack));
  if (!row || !row->name.ends_with(".pack")) return false;
  const Codec& chosen = choose_codec(codec_, chunk.header.dtype);
  const bool wants_raw = chosen.id() == CodecId::raw;
  if (wants_raw && chunk.location.codec == CodecId::raw) return false;
  const ChunkPtr plain = CAKE_TRY(read_chunk(chunk.location, buffers_, reader_));
  PutItem item;
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
  queue_.submit_new(std::move(item));
  recoded_.add();
  return true;
}

}  // namespace cake
