#include "store/materialize_plan.h"

#include <algorithm>
#include <map>
#include <utility>

#include "store/base/digest.h"
#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/evict.h"
#include "store/pack.h"
#include "store/pack_record.h"
#include "store/recipe.h"
#include "store/verify.h"

namespace cake {

namespace {

// Written with one system call.
constexpr uint64_t kBatchBytes = 8 * kMiB;
// Made durable and dropped from the page cache together: whoever reads meanwhile keeps his pages.
constexpr uint64_t kSyncBytes = 64 * kMiB;
constexpr size_t kSegmentItems = 1024;

}  // namespace

std::string raw_file_name(const ContentRow& content) {
  return cat(content_pack_name(content.source, content.key), kRawSuffix);
}

Result<std::optional<File>> take_turn(const Store& store) {
  File lock = CAKE_TRY(File::open(store.directory() + "/materialize.lock", File::Mode::create));
  if (!CAKE_TRY(lock.try_lock({}, true))) return std::nullopt;
  return std::optional<File>(std::move(lock));
}

Materializer::Materializer(Store& store, std::unique_ptr<MaterializedIndex> index)
    : store_(store), packs_(store.directory() + "/packs"), index_(std::move(index)) {}

Result<std::unique_ptr<Materializer>> Materializer::connect(Store& store) {
  auto index = CAKE_TRY(MaterializedIndex::open(store.directory() + "/index.db"));
  return std::unique_ptr<Materializer>(new Materializer(store, std::move(index)));
}

Result<std::unique_ptr<Materializer>> Materializer::open(Store& store) {
  std::unique_ptr<Materializer> made = CAKE_TRY(connect(store));
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
  std::optional<Plan> plan = CAKE_TRY(make_plan(content));
  if (!plan || !plan->is_complete()) return Outcome::incomplete;
  if (plan->content.bytes < kLeastBytes) return Outcome::too_small;
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return Outcome::busy;
  const std::string name = raw_file_name(plan->content);
  if (const auto there = CAKE_TRY(index_->find(name))) {
    if (there->kind != PackKind::leaving) return Outcome::already;
    // Something in it proved wrong, or its way out was cut short: out, and in anew.
    if (!CAKE_TRY(take_out(*plan))) return Outcome::busy;
    plan = CAKE_TRY(make_plan(content));
    if (!plan || !plan->is_complete()) return Outcome::incomplete;
  }

  const uint64_t needed = plan->content.bytes + options.min_free_bytes;
  if (const DiskSpace disk = CAKE_TRY(disk_space(packs_)); disk.free_bytes < needed)
    return Error{Errc::no_space, cat("materializing ", plan->content.path, " needs ", needed,
                                     " bytes free, ", disk.free_bytes, " are")};
  const std::string path = path_of(name + ".tmp");
  CAKE_TRY(remove_file(path));
  const auto write = [&]() -> Result<Outcome> {
    const File out = CAKE_TRY(File::open(path, File::Mode::create_new));
    if (!CAKE_TRY(store_.evictor().reserve_free(out, plan->content.bytes)))
      return Error{Errc::no_space,
                   cat("materializing ", plan->content.path, " needs ", plan->content.bytes,
                       " bytes within cache_size for a while")};
    const Outcome written = CAKE_TRY(write_copy(*plan, out, options));
    if (written != Outcome::done) return written;
    fault_point("materialize.written");
    CAKE_TRY(record(*plan));
    CAKE_TRY(rename_file(path, path_of(name)));
    CAKE_TRY(sync_directory(packs_));
    fault_point("materialize.renamed");
    return Outcome::done;
  };
  Result<Outcome> written = write();
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
  const std::optional<WholeHash> hash =
      plan.content.verified ? std::nullopt : whole_hash(plan.content);
  std::optional<FileHasher> hasher;
  if (hash) hasher.emplace(hash->kind, plan.content.bytes);
  std::vector<ChunkPtr> batch;
  uint64_t written = 0, synced = 0, pending = 0;
  const auto write_batch = [&]() -> Status {
    std::vector<ByteSpan> parts;
    parts.reserve(batch.size());
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
  if (hasher->finish_hex() != hash->hex)
    return Error{Errc::corrupt,
                 cat(plan.content.path, ": the cached bytes do not have the hub's hash")};
  CAKE_TRY(store_.index().set_verification(plan.content.id, Verification::verified));
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
    if (portion.size() < kMovePortion && ordinal + 1 < plan.extents.count()) continue;
    const std::vector<Location> left = CAKE_TRY(index_->move_in(row.pack, portion));
    fault_point("materialize.moved");
    punch(left);
    fault_point("materialize.punched");
    portion.clear();
  }
  return index_->arrived(row.pack);
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
  const std::string name = raw_file_name(content);
  Result<File> file = File::open(path_of(name), File::Mode::read);
  if (!file && file.error().code == Errc::not_found) return std::nullopt;
  if (!file) return file.error();
  if (!CAKE_TRY(file->try_lock({}, false))) return std::nullopt;  // being removed
  const std::optional<MaterializedRow> row = CAKE_TRY(index_->find(name));
  if (!row || row->kind == PackKind::leaving) return std::nullopt;
  if (CAKE_TRY(file->size()) != content.bytes)
    return Error{Errc::corrupt, cat(file->path(), " is not ", content.bytes, " bytes long")};
  // The kernel would read a hole as zeros, and nobody would notice.
  if (CAKE_TRY(file->disk_bytes()) < content.bytes)
    return Error{Errc::corrupt, cat(file->path(), " has holes")};
  return std::optional<File>(std::move(file).value());
}

Result<bool> Materializer::is_materialized(const ContentRow& content) {
  return CAKE_TRY(index_->find(raw_file_name(content))).has_value();
}

Result<std::vector<Materializer::Entry>> Materializer::list() {
  std::vector<Entry> entries;
  for (const MaterializedRow& row : CAKE_TRY(index_->list())) {
    const auto name = Digest::from_hex(std::string_view(row.name).substr(
        0, row.name.size() - std::min(row.name.size(), kRawSuffix.size())));
    if (!name) continue;
    if (const auto content = CAKE_TRY(store_.index().find_content_by_name(*name)))
      entries.push_back({*content, row.bytes});
  }
  return entries;
}

}  // namespace cake
