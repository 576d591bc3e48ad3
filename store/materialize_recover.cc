#include <atomic>
#include <utility>

#include "store/base/clock.h"
#include "store/base/digest.h"
#include "store/base/log.h"
#include "store/evict.h"
#include "store/materialize_plan.h"

namespace cake {

Status Materializer::recover(uint64_t most_bytes) {
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return {};  // its holder lives, and did this
  const auto note = [&](const std::string& name, const Status& done) {
    if (!done) log_warn(done.error().with("recovering " + path_of(name)).message);
  };
  for (const std::string& name : CAKE_TRY(list_directory(packs_))) {
    if (name.ends_with(kRawPartSuffix)) note(name, remove_file(path_of(name)));
    if (name.ends_with(kRawSuffix) && !CAKE_TRY(index_->find(name))) note(name, recover_file(name));
  }
  for (const MaterializedRow& row : CAKE_TRY(index_->list()))
    note(row.name, recover_row(row, most_bytes));
  return {};
}

Status Materializer::recover_row(const MaterializedRow& row, uint64_t most_bytes) {
  // Rows that point into it are found to be stale when they are read.
  if (!path_exists(path_of(row.name))) return index_->remove(row.pack);
  if (row.kind == PackKind::materialized) return {};
  const auto name = Digest::from_hex(row.name.substr(0, row.name.size() - kRawSuffix.size()));
  const std::optional<RowId> content =
      name ? CAKE_TRY(store_.index().find_content_by_name(*name)) : std::nullopt;
  const std::optional<Plan> plan = content ? CAKE_TRY(make_plan(*content)) : std::nullopt;
  if (!plan) return recover_uncut(row);
  if (row.kind == PackKind::arriving) return move_in(row, *plan);
  return recover_leaving(row, *plan, most_bytes);
}

// What is in it may be all that others have of it.
Status Materializer::recover_uncut(const MaterializedRow& row) {
  if (CAKE_TRY(index_->chunks_in(row.pack)).empty()) return remove(row);
  return index_->set_kind(row.pack, PackKind::leaving);
}

// It is read chunk by chunk as long as it is `leaving`, so nothing is wrong with leaving it so:
// what is large goes when it is evicted, removed, repaired, or materialized again.
Status Materializer::recover_leaving(const MaterializedRow& row, const Plan& plan,
                                     uint64_t most_bytes) {
  uint64_t bytes = 0, elsewhere = 0;
  for (const std::optional<Location>& location : plan.locations) {
    if (location && location->pack == row.pack)
      bytes += location->plain_bytes;
    else
      elsewhere++;
  }
  // Nothing had left it.  (A chunk that proved wrong has: such a file does not become what it was.)
  if (elsewhere == 0) return index_->stay(row.pack, PackKind::materialized, plan.digests);
  if (bytes > most_bytes) {
    log_info(cat(path_of(row.name), " has ", bytes, " bytes left to move out: later"));
    return {};
  }
  // Somebody may have it open: chunks that prove wrong make it leave under him.
  CAKE_TRY(take_out(plan));
  return {};
}

// A file that the index does not know: its writer was killed just before it said so, or the index
// was lost and made again from the packs.
Status Materializer::recover_file(const std::string& name) {
  const auto digest = Digest::from_hex(name.substr(0, name.size() - kRawSuffix.size()));
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
    const Status read = file.read_exactly_at(extent.offset, bytes);
    if (!read && read.error().code == Errc::corrupt) return false;
    CAKE_TRY(Status(read));
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

namespace {

// Rarely asked, so it keeps no connection to the index open.
class StoreWholeFiles final : public WholeFiles {
 public:
  explicit StoreWholeFiles(Store& store) : store_(store) {}

  Result<std::vector<Entry>> list() override {
    return list_if([](Materializer&, const Materializer::Entry&) -> Result<bool> { return true; });
  }
  Result<std::vector<Entry>> list_evictable(const Keys& kept) override {
    return list_if([&](Materializer& materializer, const Materializer::Entry& entry) {
      return materializer.is_evictable(entry, kept);
    });
  }
  uint64_t evict(RowId content) override {
    const Result<uint64_t> freed = try_evict(content);
    if (!freed) log_failure(freed.error().with(cat("evicting whole file ", content)));
    return freed ? *freed : 0;
  }
  Result<std::optional<uint64_t>> remove(RowId content, const Keys& staying) override {
    auto freed = CAKE_TRY(Materializer::connect(store_))->forget(content, staying);
    if (freed || freed.error().code != Errc::corrupt) return freed;
    log_warn(freed.error().with(cat("removing whole file ", content)).message);
    return std::nullopt;
  }
  void close_removed() override { store_.chunks().close_removed(); }

 private:
  using Filter = std::function<Result<bool>(Materializer&, const Materializer::Entry&)>;

  Result<std::vector<Entry>> list_if(const Filter& filter) {
    const auto materializer = CAKE_TRY(Materializer::connect(store_));
    std::vector<Entry> entries;
    for (const Materializer::Entry& entry : CAKE_TRY(materializer->list())) {
      if (!CAKE_TRY(filter(*materializer, entry))) continue;
      if (const auto row = CAKE_TRY(store_.index().find_content(entry.content)))
        entries.push_back({entry.content, entry.bytes, row->last_access});
    }
    return entries;
  }
  Result<uint64_t> try_evict(RowId content) {
    return CAKE_TRY(Materializer::connect(store_))->evict(content);
  }

  // Every eviction may meet it again.
  void log_failure(const Error& error) {
    const int64_t now = unix_now();
    if (now < next_log_.load() || error.code == Errc::no_space) return;
    next_log_ = now + kLogPeriod;
    log_warn(error.message);
  }

  static constexpr int64_t kLogPeriod = 60;  // s

  Store& store_;
  std::atomic<int64_t> next_log_{0};  // Unix seconds
};

}  // namespace

Status recover_materialized(Store& store) {
  store.evictor().set_whole_files(std::make_shared<StoreWholeFiles>(store));
  for (const std::string& name : CAKE_TRY(list_directory(store.directory() + "/packs")))
    if (name.ends_with(kRawSuffix) || name.ends_with(kRawPartSuffix)) {
      CAKE_TRY(Materializer::open(store));
      return {};
    }
  return {};
}

}  // namespace cake
