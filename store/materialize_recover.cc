#include <utility>

#include "store/base/digest.h"
#include "store/base/log.h"
#include "store/evict.h"
#include "store/materialize_plan.h"

namespace cake {

Status Materializer::recover() {
  const std::optional<File> turn = CAKE_TRY(take_turn(store_));
  if (!turn) return {};  // its holder lives, and did this
  for (const std::string& name : CAKE_TRY(list_directory(packs_))) {
    if (name.ends_with(kRawPartSuffix)) CAKE_TRY(remove_file(path_of(name)));
    if (name.ends_with(kRawSuffix) && !CAKE_TRY(index_->find(name))) CAKE_TRY(recover_file(name));
  }
  for (const MaterializedRow& row : CAKE_TRY(index_->list())) CAKE_TRY(recover_row(row));
  return {};
}

Status Materializer::recover_row(const MaterializedRow& row) {
  // Rows that point into it are found to be stale when they are read.
  if (!path_exists(path_of(row.name))) return index_->remove(row.pack);
  if (row.kind == PackKind::materialized) return {};
  const auto name = Digest::from_hex(row.name.substr(0, row.name.size() - kRawSuffix.size()));
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

namespace {

// Rarely asked, so it keeps no connection to the index open.
class StoreWholeFiles final : public WholeFiles {
 public:
  explicit StoreWholeFiles(Store& store) : store_(store) {}

  Result<std::vector<Entry>> list() override {
    const auto materializer = CAKE_TRY(Materializer::open(store_));
    std::vector<Entry> entries;
    for (const Materializer::Entry& entry : CAKE_TRY(materializer->list()))
      if (const auto row = CAKE_TRY(store_.index().find_content(entry.content)))
        entries.push_back({entry.content, entry.bytes, row->last_access});
    return entries;
  }
  Result<uint64_t> evict(RowId content) override {
    return CAKE_TRY(Materializer::open(store_))->evict(content);
  }
  Result<bool> unmaterialize(RowId content) override {
    return CAKE_TRY(Materializer::open(store_))->unmaterialize(content);
  }

 private:
  Store& store_;
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
