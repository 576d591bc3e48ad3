#include <set>
#include <utility>

#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/materialize_plan.h"

namespace cake {

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
  const std::optional<Held> held = CAKE_TRY(hold(plan->content));
  if (!held) return false;
  const Status moved = move_out(held->row, *plan);
  if (!moved) {
    // It stays what it was: complete, with some chunks elsewhere as well.
    CAKE_TRY(index_->set_kind(held->row.pack, PackKind::materialized));
    return moved.error();
  }
  CAKE_TRY(remove(held->row));
  return true;
}

Status Materializer::move_out(const MaterializedRow& row, const Plan& plan) {
  std::optional<PackWriter> writer;
  const Digest content =
      Digest::from_hex(content_pack_name(plan.content.source, plan.content.key)).value_or(Digest{});
  std::set<Digest> done;
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
  for (uint64_t ordinal = 0; ordinal < plan.extents.count(); ordinal++) {
    const std::optional<Location>& from = plan.locations[ordinal];
    if (!from || from->pack != row.pack || !done.insert(plan.digests[ordinal]).second) continue;
    // A damaged chunk is not worth keeping: its row goes with the file.
    const Result<ChunkPtr> chunk = store_.chunks().read(*from);
    if (!chunk && chunk.error().code != Errc::corrupt) return chunk.error();
    if (!chunk) {
      log_warn(chunk.error().message);
      CAKE_TRY(index_->drop(row.pack, {&plan.digests[ordinal], 1}));
      continue;
    }
    if (!writer) writer.emplace(CAKE_TRY(create_pack(packs_, store_.index())));
    const MovedChunk moved =
        CAKE_TRY(append_chunk(*writer, plan, ordinal, content, *from, (*chunk)->bytes()));
    portion.push_back(moved);
    if (portion.size() == kMovePortion) CAKE_TRY(publish());
    if (writer->end() > kPackBytes) {
      CAKE_TRY(publish());
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

Result<uint64_t> Materializer::evict(RowId content) {
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return uint64_t{0};
  const std::optional<Plan> plan = CAKE_TRY(make_plan(content));
  if (!plan) return uint64_t{0};
  const std::optional<Held> held = CAKE_TRY(hold(plan->content));
  if (!held) return uint64_t{0};
  CAKE_TRY(index_->drop(held->row.pack, plan->digests));
  fault_point("materialize.dropped");
  CAKE_TRY(remove(held->row));
  return held->row.bytes;
}

// Row before file: a file without a row is looked at by recover().
Status Materializer::remove(const MaterializedRow& row) {
  CAKE_TRY(index_->remove(row.pack));
  fault_point("unmaterialize.removed");
  CAKE_TRY(remove_file(path_of(row.name)));
  return sync_directory(packs_);
}

}  // namespace cake
