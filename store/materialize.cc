#include "store/materialize.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "store/base/digest.h"
#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/pack.h"
#include "store/pack_record.h"
#include "store/recipe.h"

namespace cake {

namespace {

constexpr std::string_view kSuffix = ".raw";
constexpr std::string_view kPartSuffix = ".raw.tmp";
// Written with one system call.
constexpr uint64_t kBatchBytes = 8 * kMiB;
// Made durable and dropped from the page cache together: whoever reads meanwhile keeps his pages.
constexpr uint64_t kSyncBytes = 64 * kMiB;
// Rows moved and copies punched together: what a crash between the two loses on the disk.
constexpr size_t kPortion = 32;
constexpr size_t kSegmentItems = 1024;

std::string file_name(const ContentRow& content) {
  return cat(content_pack_name(content.source, content.key), kSuffix);
}

// One materialization a store at a time: they are all disk, and what is found half done while
// holding it was left by a dead process.  nullopt: somebody is at it.
Result<std::optional<File>> take_turn(const Store& store) {
  File lock = CAKE_TRY(File::open(store.directory() + "/materialize.lock", File::Mode::create));
  if (!CAKE_TRY(lock.try_lock({}, true))) return std::nullopt;
  return std::optional<File>(std::move(lock));
}

struct Proof {
  FileHash kind = FileHash::sha256;
  std::string wanted;  // hex; empty: nothing to compare with
};

Proof proof_of(const ContentRow& content) {
  if (content.verified) return {};
  if (!content.ids.sha256.empty()) return {FileHash::sha256, content.ids.sha256};
  if (content.key.kind == ContentKind::git_blob)
    return {FileHash::git_blob_sha1, content.ids.git_oid};
  return {};
}

}  // namespace

// What a content consists of, and where that lies now.
struct Materializer::Plan {
  ContentRow content;
  Extents extents;
  std::vector<Digest> digests;                     // zero: not known
  std::vector<std::optional<Location>> locations;  // nullopt: not here

  bool is_complete() const {
    return std::all_of(locations.begin(), locations.end(),
                       [](const auto& location) { return location.has_value(); });
  }
  bool has_all_digests() const {
    return std::none_of(digests.begin(), digests.end(),
                        [](const Digest& digest) { return digest.is_zero(); });
  }
};

// A materialized file that nobody else uses, while this lives.
struct Materializer::Held {
  MaterializedRow row;
  File file;  // locked exclusively
};

Materializer::Materializer(Store& store, std::unique_ptr<MaterializedIndex> index)
    : store_(store), packs_(store.directory() + "/packs"), index_(std::move(index)) {}

Result<std::unique_ptr<Materializer>> Materializer::open(Store& store) {
  auto index = CAKE_TRY(MaterializedIndex::open(store.directory() + "/index.db"));
  std::unique_ptr<Materializer> made(new Materializer(store, std::move(index)));
  CAKE_TRY(made->recover());
  return made;
}

std::string Materializer::path_of(const std::string& name) const {
  return packs_ + "/" + name;
}

Result<std::optional<Materializer::Plan>> Materializer::make_plan(RowId content) const {
  std::optional<ContentRow> row = CAKE_TRY(store_.index().find_content(content));
  if (!row) return Error{Errc::not_found, cat("content ", content, " is not in the index")};
  std::optional<Recipe> recipe = CAKE_TRY(load_recipe(store_.index(), *row));
  if (!recipe) return std::nullopt;
  Plan plan{std::move(*row), std::move(recipe->extents), {}, {}};
  plan.digests = CAKE_TRY(store_.index().find_digests(content, 0, plan.extents.count()));
  // A zero digest names no chunk, so it is found nowhere.
  plan.locations = CAKE_TRY(store_.index().find_chunks(plan.digests));
  return plan;
}

// --- In ---

Result<Materializer::Outcome> Materializer::materialize(RowId content,
                                                        const MaterializeOptions& options) {
  const std::optional<Plan> plan = CAKE_TRY(make_plan(content));
  if (!plan || !plan->is_complete()) return Outcome::incomplete;
  if (plan->content.bytes < kLeastBytes) return Outcome::too_small;
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return Outcome::busy;
  const std::string name = file_name(plan->content);
  if (CAKE_TRY(index_->find(name))) return Outcome::already;

  const uint64_t needed = plan->content.bytes + options.min_free_bytes;
  if (const DiskSpace disk = CAKE_TRY(disk_space(packs_)); disk.free_bytes < needed)
    return Error{Errc::no_space, cat("materializing ", plan->content.path, " needs ", needed,
                                     " bytes free, ", disk.free_bytes, " are")};
  const std::string path = path_of(name + ".tmp");
  CAKE_TRY(remove_file(path));
  const auto write = [&]() -> Result<Outcome> {
    const File out = CAKE_TRY(File::open(path, File::Mode::create_new));
    const Outcome written = CAKE_TRY(write_copy(*plan, out, options));
    if (written != Outcome::done) return written;
    fault_point("materialize.written");
    CAKE_TRY(record(*plan));
    CAKE_TRY(rename_file(path, path_of(name)));
    CAKE_TRY(sync_directory(packs_));
    fault_point("materialize.renamed");
    return Outcome::done;
  };
  const Result<Outcome> written = write();
  if (!written || *written != Outcome::done) {
    CAKE_TRY(remove_file(path));
    return written;
  }
  const MaterializedRow row = CAKE_TRY(index_->add(name, plan->content.bytes));
  fault_point("materialize.added");
  CAKE_TRY(move_in(row, *plan));
  log_info(cat("materialized ", plan->content.repo.id, "/", plan->content.path, ", ",
               plan->content.bytes, " bytes"));
  return Outcome::done;
}

Result<Materializer::Outcome> Materializer::write_copy(const Plan& plan, const File& out,
                                                       const MaterializeOptions& options) {
  const Proof proof = proof_of(plan.content);
  std::optional<FileHasher> hasher;
  if (!proof.wanted.empty()) hasher.emplace(proof.kind, plan.content.bytes);
  std::vector<ChunkPtr> batch;
  uint64_t written = 0, synced = 0, pending = 0;
  const auto write_batch = [&]() -> Status {
    std::vector<ByteSpan> parts;
    for (const ChunkPtr& chunk : batch) parts.push_back(chunk->bytes());
    CAKE_TRY(out.write_parts_at(written, parts));
    written += pending;
    batch.clear();
    pending = 0;
    if (written - synced < kSyncBytes && written != plan.content.bytes) return {};
    CAKE_TRY(out.sync_data());
    out.drop_cache({synced, written - synced});
    synced = written;
    return {};
  };
  for (uint64_t ordinal = 0; ordinal < plan.extents.count(); ordinal++) {
    if (options.should_stop && options.should_stop()) return Outcome::stopped;
    Result<ChunkPtr> chunk = store_.chunks().read(*plan.locations[ordinal]);
    if (!chunk) {
      // It may have moved since the plan was made.
      const auto now = CAKE_TRY(store_.index().find_chunks({&plan.digests[ordinal], 1}));
      if (!now.front()) return Outcome::incomplete;
      chunk = store_.chunks().read(*now.front());
    }
    if (!chunk) return chunk.error();
    if ((*chunk)->size() != plan.extents.at(ordinal).length)
      return Error{Errc::corrupt, cat("extent ", ordinal, " of ", plan.content.path)};
    if (hasher) hasher->update((*chunk)->bytes());
    pending += (*chunk)->size();
    batch.push_back(std::move(chunk).value());
    if (pending < kBatchBytes && ordinal + 1 < plan.extents.count()) continue;
    CAKE_TRY(write_batch());
    if (options.on_progress) options.on_progress(written);
  }
  if (!hasher) return Outcome::done;
  if (hasher->finish_hex() != proof.wanted)
    return Error{Errc::corrupt,
                 cat(plan.content.path, ": the cached bytes do not have the hub's hash")};
  CAKE_TRY(store_.index().set_verified(plan.content.id, true));
  return Outcome::done;
}

// The chunks' own entries, which say what they belong to, go: a lost index is made again from
// these.
Status Materializer::record(const Plan& plan) {
  const std::string name = content_pack_name(plan.content.source, plan.content.key);
  std::vector<SegmentItem> items;
  for (uint64_t ordinal = 0; ordinal < plan.extents.count(); ordinal++) {
    const auto length = static_cast<uint32_t>(plan.extents.at(ordinal).length);
    items.push_back({ordinal, length, plan.digests[ordinal]});
    if (items.size() < kSegmentItems && ordinal + 1 < plan.extents.count()) continue;
    CAKE_TRY(store_.chunks().record_segment(name, items));
    items.clear();
  }
  return store_.chunks().flush();
}

// Can be done again, from any point.
Status Materializer::move_in(const MaterializedRow& row, const Plan& plan) {
  std::vector<PlacedChunk> portion;
  for (uint64_t ordinal = 0; ordinal < plan.extents.count(); ordinal++) {
    const Extent extent = plan.extents.at(ordinal);
    const std::optional<Location>& known = plan.locations[ordinal];
    if (known)
      portion.push_back({plan.digests[ordinal], extent.offset, static_cast<uint32_t>(extent.length),
                         known->checksum});
    if (portion.size() < kPortion && ordinal + 1 < plan.extents.count()) continue;
    const std::vector<Location> left = CAKE_TRY(index_->move_in(row.pack, portion));
    fault_point("materialize.moved");
    punch(left);
    fault_point("materialize.punched");
    portion.clear();
  }
  return index_->set_kind(row.pack, PackKind::materialized);
}

void Materializer::punch(const std::vector<Location>& left) {
  std::map<uint32_t, std::optional<File>> files;
  for (const Location& location : left) {
    const auto [place, is_new] = files.try_emplace(location.pack);
    std::optional<File>& file = place->second;
    if (is_new) {
      const auto row = store_.index().find_pack(location.pack);
      if (!row || !*row) continue;
      auto opened = File::open(path_of((*row)->name), File::Mode::read_write);
      if (opened) file = std::move(opened).value();
    }
    if (!file) continue;  // evicted as a whole meanwhile
    const Status punched = file->punch_hole(
        {location.offset - kEntryHeaderBytes, kEntryHeaderBytes + location.encoded_bytes});
    // Costs disk until the pack goes, nothing else.
    if (!punched) log_warn(punched.error().message);
  }
}

// --- Use ---

Result<std::optional<File>> Materializer::open_file(const ContentRow& content) {
  const std::string name = file_name(content);
  Result<File> file = File::open(path_of(name), File::Mode::read);
  if (!file && file.error().code == Errc::not_found) return std::nullopt;
  if (!file) return file.error();
  if (!CAKE_TRY(file->try_lock({}, false))) return std::nullopt;  // being removed
  const std::optional<MaterializedRow> row = CAKE_TRY(index_->find(name));
  if (!row || row->kind == PackKind::leaving) return std::nullopt;
  if (CAKE_TRY(file->size()) != content.bytes)
    return Error{Errc::corrupt, cat(file->path(), " is not ", content.bytes, " bytes long")};
  return std::optional<File>(std::move(file).value());
}

Result<bool> Materializer::is_materialized(const ContentRow& content) {
  return CAKE_TRY(index_->find(file_name(content))).has_value();
}

Result<std::vector<Materializer::Entry>> Materializer::list() {
  std::vector<Entry> entries;
  for (const MaterializedRow& row : CAKE_TRY(index_->list())) {
    const auto name = Digest::from_hex(std::string_view(row.name).substr(
        0, row.name.size() - std::min(row.name.size(), kSuffix.size())));
    if (!name) continue;
    if (const auto content = CAKE_TRY(store_.index().find_content_by_name(*name)))
      entries.push_back({*content, row.bytes});
  }
  return entries;
}

// --- Out ---

Result<std::optional<Materializer::Held>> Materializer::hold(const ContentRow& content) {
  const std::optional<MaterializedRow> row = CAKE_TRY(index_->find(file_name(content)));
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
    CAKE_TRY(store_.index().publish({}, writer->id(), writer->end()));
    CAKE_TRY(index_->move_out(portion));
    fault_point("unmaterialize.moved");
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
    if (portion.size() == kPortion) CAKE_TRY(publish());
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
  const std::vector<uint64_t> offsets = CAKE_TRY(writer.append({&entry, 1}));
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

// --- Recovery ---

Status Materializer::recover() {
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return {};  // its holder lives, and did this
  for (const std::string& name : CAKE_TRY(list_directory(packs_))) {
    if (name.ends_with(kPartSuffix)) CAKE_TRY(remove_file(path_of(name)));
    if (name.ends_with(kSuffix) && !CAKE_TRY(index_->find(name))) CAKE_TRY(recover_file(name));
  }
  for (const MaterializedRow& row : CAKE_TRY(index_->list())) CAKE_TRY(recover_row(row));
  return {};
}

Status Materializer::recover_row(const MaterializedRow& row) {
  // Rows that point into it are found to be stale when they are read.
  if (!path_exists(path_of(row.name))) return index_->remove(row.pack);
  if (row.kind == PackKind::materialized) return {};
  const auto name = Digest::from_hex(row.name.substr(0, row.name.size() - kSuffix.size()));
  const std::optional<RowId> content =
      name ? CAKE_TRY(store_.index().find_content_by_name(*name)) : std::nullopt;
  const std::optional<Plan> plan = content ? CAKE_TRY(make_plan(*content)) : std::nullopt;
  if (!plan) return remove(row);
  if (row.kind == PackKind::arriving) return move_in(row, *plan);
  CAKE_TRY(move_out(row, *plan));
  return remove(row);
}

// A file that the index does not know: its writer was killed just before it said so, or the index
// was lost and made again from the packs.
Status Materializer::recover_file(const std::string& name) {
  const auto digest = Digest::from_hex(name.substr(0, name.size() - kSuffix.size()));
  const std::optional<RowId> content =
      digest ? CAKE_TRY(store_.index().find_content_by_name(*digest)) : std::nullopt;
  std::optional<Plan> plan = content ? CAKE_TRY(make_plan(*content)) : std::nullopt;
  if (plan && !plan->is_complete() && plan->has_all_digests()) {
    const File file = CAKE_TRY(File::open(path_of(name), File::Mode::read));
    if (CAKE_TRY(adopt(name, file, *plan))) return {};
  }
  log_info(cat("removed ", path_of(name), ", which nothing refers to"));
  return remove_file(path_of(name));
}

// Only what hashes to what is known of it is taken.
Result<bool> Materializer::adopt(const std::string& name, const File& file, Plan& plan) {
  if (CAKE_TRY(file.size()) != plan.content.bytes) return false;
  const auto buffer = store_.buffers().allocate(kChunkBytes);
  for (uint64_t ordinal = 0; ordinal < plan.extents.count(); ordinal++) {
    const Extent extent = plan.extents.at(ordinal);
    const MutableByteSpan bytes = buffer->bytes().first(extent.length);
    CAKE_TRY(file.read_exactly_at(extent.offset, bytes));
    if (blake3(bytes) != plan.digests[ordinal]) return false;
    Location here;
    here.checksum = xxh3(bytes);
    plan.locations[ordinal] = here;
  }
  const MaterializedRow row = CAKE_TRY(index_->add(name, plan.content.bytes));
  CAKE_TRY(move_in(row, plan));
  log_info(cat("took ", path_of(name), " back into the index"));
  return true;
}

Status recover_materialized(Store& store) {
  for (const std::string& name : CAKE_TRY(list_directory(store.directory() + "/packs")))
    if (name.ends_with(kSuffix) || name.ends_with(kPartSuffix)) {
      CAKE_TRY(Materializer::open(store));
      return {};
    }
  return {};
}

}  // namespace cake
