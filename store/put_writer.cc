#include "store/put_writer.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/evict.h"
#include "store/salvage.h"

namespace cake {

namespace {

// A full store's writer waits so long for its own rows.
constexpr Millis kPublishPatience{5'000};

Location location_of(uint32_t pack, uint64_t offset, const EntryHeader& header) {
  return {pack, offset, header.payload_bytes, header.plain_bytes, header.codec, header.checksum};
}

}  // namespace

PutWriter::PutWriter(Options options, Index& index, BufferPool& buffers, PutQueue& queue,
                     PendingPuts& puts, Recoder& recoder)
    : options_(std::move(options)),
      index_(index),
      buffers_(buffers),
      queue_(queue),
      puts_(puts),
      recoder_(recoder) {
  thread_.post(ThreadPool::Priority::demand, [this] { run(); });
}

void PutWriter::run() {
  while (true) {
    PutQueue::Work work = queue_.wait_for_work(may_have_room_);
    if (work.quiet || work.stop) give_back_room();
    if (work.stop) return;
    if (work.close) close(std::move(*work.close));
    if (pack_ != nullptr &&
        (queue_.is_condemned(pack_->id()) || pack_->end() > options_.pack_bytes)) {
      PutGroup last = queue_.take_open();
      last.seal = true;
      close(std::move(last));
      give_back_room();
      pack_.reset();
    }
    if (!work.items.empty()) {
      choose_way(work);
      write(std::move(work.items));
      recoder_.recode_when_idle();
    }
  }
}

// A direct write waits behind all that the page cache is writing out.  So a disk that was too slow
// once is left alone until that has come to an end.
void PutWriter::choose_way(const PutQueue::Work& work) {
  if (work.still_waiting_bytes > buffers_.budget().limit() / PutQueue::kBehindShare)
    way_ = PackWriter::Way::through_cache;
  else if (work.all_settled)
    way_ = PackWriter::Way::past_cache;
}

// --- The pack and its room ---

// Goes on in a pack that a writer left unsealed, or starts one.
Status PutWriter::acquire_pack() {
  if (pack_ != nullptr) return {};
  for (const Index::PackRow& row : CAKE_TRY(index_.list_packs())) {
    if (row.sealed || left_alone_.contains(row.id) || queue_.is_condemned(row.id)) continue;
    Result<std::shared_ptr<PackWriter>> taken = take_over(row);
    if (taken && *taken == nullptr) continue;
    if (taken) {
      pack_ = std::move(*taken);
      return {};
    }
    // One that cannot be read, say, keeps nobody from storing in another.
    left_alone_.insert(row.id);
    log_warn(taken.error().with(cat("pack ", row.name, " is not gone on with")).message);
  }
  pack_ = std::make_shared<PackWriter>(CAKE_TRY(create_pack(options_.directory, index_)));
  return {};
}

// nullptr when another process has it, or it is full.
Result<std::shared_ptr<PackWriter>> PutWriter::take_over(const Index::PackRow& row) {
  std::optional<LockedPack> found = CAKE_TRY(lock_pack(options_.directory, index_, row));
  if (!found) return std::shared_ptr<PackWriter>();
  if (CAKE_TRY(found->file.size()) > found->row.committed_bytes)
    CAKE_TRY(salvage(options_.directory, index_, buffers_, *found));
  if (found->row.committed_bytes > options_.pack_bytes) {
    CAKE_TRY(index_.seal_pack(found->row.id, found->row.committed_bytes));
    return std::shared_ptr<PackWriter>();
  }
  // A killed writer's space.
  if (options_.evictor != nullptr && options_.evictor->is_limited())
    CAKE_TRY(Evictor::release(found->file, found->row.committed_bytes));
  return std::make_shared<PackWriter>(std::move(*found));
}

// Disk space for what comes next.
Status PutWriter::take_room(std::span<const NewEntry> entries) {
  Evictor* const evictor = options_.evictor;
  if (evictor == nullptr || !evictor->is_limited() || pack_->end_after(entries) <= reserved_end_)
    return {};
  reserved_end_ = CAKE_TRY(evictor->reserve(*pack_, entries, [this] { publish_written(); }));
  return {};
}

// What is appended where nothing is reserved makes XFS take as much ahead as the pack has already.
Status PutWriter::take_exact_room(std::span<const NewEntry> entries) {
  const uint64_t end = pack_->end_after(entries);
  if (options_.evictor == nullptr || !options_.evictor->is_limited() || end <= reserved_end_)
    return {};
  const auto taken = pack_->file().preallocate({pack_->end(), end - pack_->end()});
  return taken ? Status() : Status(taken.error());
}

void PutWriter::give_back_room() {
  if (pack_ != nullptr && std::exchange(may_have_room_, false)) {
    const Status released = Evictor::release(pack_->file(), pack_->end());
    if (!released) puts_.log_failure(released.error());
  }
  reserved_end_ = 0;
}

// --- Batches ---

// Records are small and few, and a lost index needs them: they do not wait for room that chunks
// lack.
void PutWriter::write(std::vector<PutItem> batch) {
  std::vector<PutItem> records;
  const auto first =
      std::stable_partition(batch.begin(), batch.end(), std::not_fn(&PutItem::is_record));
  std::move(first, batch.end(), std::back_inserter(records));
  batch.erase(first, batch.end());
  if (!records.empty()) write_batch(std::move(records));
  if (!batch.empty()) write_batch(std::move(batch));
}

void PutWriter::write_batch(std::vector<PutItem> batch) {
  const auto append = [&]() -> Result<std::vector<uint64_t>> {
    CAKE_TRY(acquire_pack());
    std::vector<NewEntry> entries;
    entries.reserve(batch.size());
    for (const PutItem& item : batch) entries.push_back({item.header, item.payload()});
    may_have_room_ = true;
    CAKE_TRY(batch.front().is_record() ? take_exact_room(entries) : take_room(entries));
    return pack_->append(entries, way_);
  };
  const Result<std::vector<uint64_t>> offsets = append();
  fault_point("pack.appended");
  for (size_t i = 0; i < batch.size(); i++) {
    const PutItem& item = batch[i];
    const Result<Location> location =
        offsets ? Result<Location>(location_of(pack_->id(), (*offsets)[i], item.header))
                : offsets.error();
    if (item.job == nullptr)
      end_without_job(item, location);
    else if (location)
      puts_.end_written(item, *location);
    else
      puts_.end_failed(item.job, location.error());
  }
}

// A record, or a chunk encoded anew: nobody is told.
void PutWriter::end_without_job(const PutItem& item, const Result<Location>& location) {
  // A chunk that could not be recoded is there all the same.
  if (!location && item.is_record()) puts_.log_failure(location.error());
  PutQueue::Addition addition;
  addition.sequence = item.sequence;
  addition.bytes = item.encoded.size();
  if (location && item.replaces)
    addition.extent = {0, 0, item.header.digest, *location, item.header.plain_bytes, item.replaces};
  queue_.add_to_group(addition);
}

// --- Groups ---

// What was deduplicated, so that a lost index can be made again.
Status PutWriter::append_segments(const PutGroup& group) {
  std::vector<Buffer> payloads;
  std::vector<NewEntry> entries;
  for (const auto& [content, items] : group.deduped)
    payloads.push_back(encode_segment_record(items));
  size_t i = 0;
  for (const auto& [content, items] : group.deduped) {
    const Buffer& payload = payloads[i++];
    EntryHeader header;
    header.kind = EntryKind::recipe_segment;
    header.payload_bytes = header.plain_bytes = static_cast<uint32_t>(payload.size());
    header.checksum = xxh3(payload);
    header.digest = blake3(payload);
    header.content = content;
    entries.push_back({header, payload});
  }
  CAKE_TRY(acquire_pack());
  CAKE_TRY(pack_->append(entries, PackWriter::Way::through_cache));
  return {};
}

void PutWriter::close(PutGroup group) {
  if (!group.deduped.empty()) {
    // The index has the digests all the same; only a lost index would miss them.
    const Status appended = append_segments(group);
    if (!appended) puts_.log_failure(appended.error());
    fault_point("pack.segments_appended");
  }
  group.pack = pack_;
  group.end = pack_ != nullptr ? pack_->end() : 0;
  queue_.close(std::move(group));
}

// Gives rows to what has been written, as far as the index takes them.
void PutWriter::publish_written() {
  PutGroup group = queue_.take_open();
  if (!group.is_empty()) close(std::move(group));
  queue_.wait_until_settled(steady_now() + kPublishPatience);
}

}  // namespace cake
