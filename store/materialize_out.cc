#include <set>
#include <utility>

#include "store/base/clock.h"
#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/evict.h"
#include "store/materialize_plan.h"

namespace cake {

namespace {

// An eviction copies so much at most, while writers wait for space.lock, and half of the file: else
// the gain is not worth it.
constexpr uint64_t kMovedByEviction = 256 * kMiB;
// What a chunk takes in a pack at most, beside its bytes: a header, and padding on both sides.
constexpr uint64_t kEntryOverhead = 2 * kBigAlignment;
// Of the limit: by so much an eviction may pass it until what it copied from is gone.
constexpr uint64_t kPassedShare = 128;

uint64_t eviction_bound(uint64_t file_bytes) {
  return std::min(kMovedByEviction, file_bytes / 2);
}

bool contains(const std::vector<uint64_t>& keys, const Digest& digest) {
  return std::binary_search(keys.begin(), keys.end(), digest_key(digest));
}

}  // namespace

// How a file's chunks leave it.
struct Materializer::Leave {
  bool all_stay = false;
  std::vector<uint64_t> keys;  // else: digest_key of those that do, sorted; the others are dropped
  uint64_t most_bytes = UINT64_MAX;  // when more have to be moved, the file stays
  // Whether room is taken first, within the store's limits and with space.lock; an eviction has
  // that lock, and gives back more than it takes.
  bool reserves = true;

  bool stays(const Digest& digest) const { return all_stay || contains(keys, digest); }
};

Result<std::optional<Materializer::Held>> Materializer::hold(const ContentRow& content) {
  const std::optional<MaterializedRow> row = CAKE_TRY(index_->find(raw_file_name(content)));
  if (!row) return std::nullopt;
  Result<File> file = File::open(path_of(row->name), File::Mode::read_write);
  if (!file && file.error().code == Errc::not_found) return std::nullopt;
  if (!file) return file.error();
  if (!CAKE_TRY(file->try_lock({}, true))) return std::nullopt;
  // From here on nobody opens it for passthrough.
  CAKE_TRY(index_->set_kind(row->pack, PackKind::leaving));
  fault_point("materialize.leaving");
  return Held{*row, std::move(file).value()};
}

Result<bool> Materializer::unmaterialize(RowId content) {
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return false;
  const std::optional<Plan> plan = CAKE_TRY(make_plan(content));
  if (!plan) return false;
  return take_out(*plan);
}

Result<bool> Materializer::take_out(const Plan& plan) {
  Leave all;
  all.all_stay = true;
  return CAKE_TRY(leave(plan, all)).has_value();
}

Result<uint64_t> Materializer::evict(RowId content) {
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return uint64_t{0};
  const std::optional<Plan> plan = CAKE_TRY(make_plan(content));
  if (!plan) return CAKE_TRY(drop_uncut(content, {})).value_or(0);
  Leave few;
  few.most_bytes = eviction_bound(plan->content.bytes);
  few.reserves = false;
  return CAKE_TRY(leave(*plan, few)).value_or(0);
}

Result<bool> Materializer::is_evictable(const Entry& entry, const std::vector<uint64_t>& kept) {
  const std::vector<uint64_t> keys = CAKE_TRY(store_.upkeep().digest_keys({&entry.content, 1}));
  if (keys.empty()) return true;  // its cut was forgotten: only a look at all chunks can tell
  const auto is_kept = [&](uint64_t key) {
    return std::binary_search(kept.begin(), kept.end(), key);
  };
  const auto shared = static_cast<uint64_t>(std::count_if(keys.begin(), keys.end(), is_kept));
  return shared * kChunkBytes <= eviction_bound(entry.bytes);
}

Result<std::optional<uint64_t>> Materializer::forget(RowId content,
                                                     const std::vector<uint64_t>& staying) {
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return std::nullopt;
  std::optional<Plan> plan = CAKE_TRY(make_plan(content));
  Leave most;
  most.keys = staying;
  if (!plan) return drop_uncut(content, most);
  Result<std::optional<uint64_t>> freed = leave(*plan, most);
  if (freed || freed.error().code != Errc::no_space) return freed;
  // Who removes something on a full disk wants room: what stays may be fetched again.
  log_info(freed.error().with("dropping what others share").message);
  // Some may have been moved.
  plan = CAKE_TRY(make_plan(content));
  if (!plan) return std::nullopt;
  freed = leave(*plan, {});
  if (freed || freed.error().code != Errc::no_space) return freed;
  log_warn(freed.error().with("left materialized").message);
  return std::nullopt;
}

// What fails leaves the file complete: what it was when nothing has left it, else `leaving`.
Result<std::optional<uint64_t>> Materializer::leave(const Plan& plan, const Leave& how) {
  const std::optional<Held> held = CAKE_TRY(hold(plan.content));
  if (!held) return std::nullopt;
  Result<std::optional<uint64_t>> freed = drop_file(held->row, plan, how);
  if (freed && *freed) return freed;
  // A chunk may have proved wrong meanwhile, here or in a reader's hands.
  if (held->row.kind != PackKind::leaving)
    CAKE_TRY(index_->stay(held->row.pack, held->row.kind, plan.digests_in(held->row.pack)));
  return freed;
}

// Without its cut nobody can say what a chunk in it belongs to, so none is moved: it goes when
// nobody needs any of them.
Result<std::optional<uint64_t>> Materializer::drop_uncut(RowId content, const Leave& how) {
  const std::optional<ContentRow> row = CAKE_TRY(store_.index().find_content(content));
  if (!row) return std::nullopt;
  const std::optional<Held> held = CAKE_TRY(hold(*row));
  if (!held) return std::nullopt;
  const std::vector<ChunkRow> chunks = CAKE_TRY(index_->chunks_in(held->row.pack));
  const Reclaimer::Kept kept = CAKE_TRY(store_.evictor().reclaimer().kept());
  const bool is_needed = std::any_of(chunks.begin(), chunks.end(), [&](const ChunkRow& chunk) {
    return kept.has(chunk.digest) || how.stays(chunk.digest);
  });
  if (is_needed || !CAKE_TRY(drop_unneeded(held->row.pack, chunks))) return std::nullopt;
  CAKE_TRY(remove(held->row));
  return held->row.bytes;
}

// As in Reclaimer::remove: rows first, then leases and pins again.  False: they are needed now, and
// back.
Result<bool> Materializer::drop_unneeded(uint32_t pack, std::span<const ChunkRow> chunks) {
  std::vector<Digest> digests;
  digests.reserve(chunks.size());
  for (const ChunkRow& chunk : chunks) digests.push_back(chunk.digest);
  CAKE_TRY(index_->drop(pack, digests));
  fault_point("materialize.dropped");
  const Reclaimer::Kept now = CAKE_TRY(store_.evictor().reclaimer().kept());
  if (std::none_of(digests.begin(), digests.end(),
                   [&](const Digest& digest) { return now.has(digest); }))
    return true;
  CAKE_TRY(store_.upkeep().restore_chunks(chunks));
  return false;
}

Result<std::optional<uint64_t>> Materializer::drop_file(const MaterializedRow& row,
                                                        const Plan& plan, const Leave& how) {
  Reclaimer& reclaimer = store_.evictor().reclaimer();
  Leave needed = how;
  if (!how.all_stay) {
    const Reclaimer::Kept kept = CAKE_TRY(reclaimer.kept());
    needed.keys.insert(needed.keys.end(), kept.keys.begin(), kept.keys.end());
    std::sort(needed.keys.begin(), needed.keys.end());
  }
  uint64_t moved_bytes = 0;
  std::set<Digest> seen;
  std::vector<ChunkRow> others;
  for (uint64_t ordinal = 0; ordinal < plan.extents.count(); ordinal++) {
    const Digest& digest = plan.digests[ordinal];
    const std::optional<Location>& location = plan.locations[ordinal];
    if (!location || location->pack != row.pack || !seen.insert(digest).second) continue;
    if (needed.stays(digest))
      moved_bytes += location->plain_bytes;
    else
      others.push_back({digest, *location, unix_now(), 0});
  }
  if (moved_bytes > how.most_bytes) return std::nullopt;
  if (moved_bytes > 0) CAKE_TRY(move_out(row, plan, needed));

  if (!CAKE_TRY(drop_unneeded(row.pack, others))) return std::nullopt;
  // An extent whose digest was forgotten may have a row that others share.
  if (!plan.has_all_digests() && !CAKE_TRY(index_->chunks_in(row.pack)).empty())
    return std::nullopt;
  CAKE_TRY(remove(row));
  return row.bytes - std::min(row.bytes, moved_bytes);
}

Status Materializer::check_room(uint64_t bytes, bool is_eviction) const {
  const Space& space = store_.evictor().space();
  const DiskSpace disk = CAKE_TRY(disk_space(packs_));
  const uint64_t passed = is_eviction ? space.limits().cache_bytes / kPassedShare : 0;
  const bool is_in_limit =
      !space.is_limited() ||
      CAKE_TRY(space.room()) + static_cast<int64_t>(passed) >= static_cast<int64_t>(bytes);
  if (is_in_limit && disk.free_bytes >= bytes) return {};
  return Error{Errc::no_space,
               cat("chunks of a materialized file need ", bytes, " bytes in packs")};
}

Status Materializer::move_out(const MaterializedRow& row, const Plan& plan, const Leave& how) {
  std::optional<PackWriter> writer;
  const Status moved = move_chunks(writer, row, plan, how);
  if (!writer) return moved;
  const Status released = Evictor::release(writer->file(), writer->end());
  // So that nobody salvages, behind what was published, bytes that only the page cache has.
  if (!moved) CAKE_TRY(store_.index().seal_pack(writer->id(), 0));
  return moved ? released : moved;
}

Status Materializer::move_chunks(std::optional<PackWriter>& writer, const MaterializedRow& row,
                                 const Plan& plan, const Leave& how) {
  const Digest content =
      Digest::from_hex(content_pack_name(plan.content.source, plan.content.key)).value_or(Digest{});
  std::vector<uint64_t> ordinals;
  std::set<Digest> seen;
  uint64_t left_bytes = 0;  // at most, in packs
  for (uint64_t ordinal = 0; ordinal < plan.extents.count(); ordinal++) {
    const std::optional<Location>& from = plan.locations[ordinal];
    const Digest& digest = plan.digests[ordinal];
    if (!from || from->pack != row.pack || !how.stays(digest) || !seen.insert(digest).second)
      continue;
    ordinals.push_back(ordinal);
    left_bytes += from->plain_bytes + kEntryOverhead;
  }
  std::vector<MovedChunk> portion;
  const auto publish = [&]() -> Status {
    if (portion.empty()) return {};
    CAKE_TRY(writer->sync());
    fault_point("unmaterialize.synced");
    // Rows first: below the committed length, what no row names is anybody's to punch.
    CAKE_TRY(index_->move_out(portion));
    fault_point("unmaterialize.moved");
    CAKE_TRY(store_.index().publish({}, writer->id(), writer->end()));
    portion.clear();
    return {};
  };
  const auto begin_pack = [&]() -> Status {
    const uint64_t wanted = std::min(left_bytes, kPackBytes + kChunkBytes) + kBigAlignment;
    // Before there is a pack that nothing would go into.
    CAKE_TRY(check_room(wanted, !how.reserves));
    writer.emplace(CAKE_TRY(create_pack(packs_, store_.index())));
    if (how.reserves && !CAKE_TRY(store_.evictor().reserve_free(writer->file(), wanted)))
      return Error{Errc::no_space, cat("no room for the chunks of ", path_of(row.name))};
    return {};
  };
  for (const uint64_t ordinal : ordinals) {
    const Location& from = *plan.locations[ordinal];
    // A damaged chunk is not worth keeping: its row goes with the file.
    const Result<ChunkPtr> chunk = store_.chunks().read(from);
    if (!chunk && chunk.error().code != Errc::corrupt) return chunk.error();
    if (!chunk) {
      log_warn(chunk.error().message);
      CAKE_TRY(index_->drop(row.pack, {&plan.digests[ordinal], 1}));
      continue;
    }
    if (!writer) CAKE_TRY(begin_pack());
    portion.push_back(
        CAKE_TRY(append_chunk(*writer, plan, ordinal, content, from, (*chunk)->bytes())));
    left_bytes -= from.plain_bytes + kEntryOverhead;
    if (portion.size() == kMovePortion) CAKE_TRY(publish());
    if (writer->end() > kPackBytes) {
      CAKE_TRY(publish());
      CAKE_TRY(Evictor::release(writer->file(), writer->end()));
      CAKE_TRY(store_.index().seal_pack(writer->id(), writer->end()));
      writer.reset();
    }
  }
  return publish();
}

Result<MovedChunk> Materializer::append_chunk(PackWriter& writer, const Plan& plan,
                                              uint64_t ordinal, const Digest& content,
                                              const Location& from, ByteSpan plain) {
  EntryHeader header;
  header.dtype = plan.extents.at(ordinal).dtype;
  header.plain_bytes = header.payload_bytes = static_cast<uint32_t>(plain.size());
  header.ordinal = ordinal;
  header.checksum = from.checksum;
  header.digest = plan.digests[ordinal];
  header.content = content;
  ByteSpan payload = plain;
  const Codec& codec = choose_codec(store_.codec(), header.dtype);
  std::optional<Buffer> encoded;
  if (codec.id() != CodecId::raw) encoded = CAKE_TRY(codec.encode(plain, header.dtype));
  if (encoded && encoded->size() < plain.size()) {
    payload = *encoded;
    header.codec = codec.id();
    header.payload_bytes = static_cast<uint32_t>(payload.size());
  }
  const NewEntry entry{header, payload};
  const std::vector<uint64_t> offsets =
      CAKE_TRY(writer.append({&entry, 1}, PackWriter::Way::past_cache));
  return MovedChunk{header.digest, from,
                    Location{writer.id(), offsets.front(), header.payload_bytes, header.plain_bytes,
                             header.codec, header.checksum}};
}

// Row before file: a file without a row is looked at by recover().
Status Materializer::remove(const MaterializedRow& row) {
  CAKE_TRY(index_->remove(row.pack));
  fault_point("unmaterialize.removed");
  CAKE_TRY(remove_file(path_of(row.name)));
  // Held open by this process, it would keep its blocks.
  store_.chunks().close_removed();
  return sync_directory(packs_);
}

}  // namespace cake
