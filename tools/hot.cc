#include "tools/hot.h"

#include "store/base/bytes.h"

namespace cake {

Result<MaterializeOptions> materialize_options(const Context& context, const Store& store) {
  MaterializeOptions options;
  const DiskSpace disk = CAKE_TRY(disk_space(store.directory()));
  options.min_free_bytes = context.config.percent_size("min_free").bytes_of(disk.total_bytes);
  return options;
}

Result<HotSums> materialize_contents(Context& context, Store& store,
                                     std::span<const RowId> contents) {
  const auto materializer = CAKE_TRY(Materializer::open(store));
  const MaterializeOptions options = CAKE_TRY(materialize_options(context, store));
  HotSums sums;
  for (const RowId content : contents) {
    const std::optional<ContentRow> row = CAKE_TRY(store.index().find_content(content));
    // Not asked of the materializer: of those it would say first whether they are here.
    if (!row || row->bytes < Materializer::kLeastBytes) continue;
    using Outcome = Materializer::Outcome;
    switch (CAKE_TRY(materializer->materialize(content, options))) {
      case Outcome::done:
        say(context, cat("materialized ", row->path));
        [[fallthrough]];
      case Outcome::already:
        sums.files++;
        sums.bytes += row->bytes;
        break;
      case Outcome::incomplete:
        sums.incomplete++;
        break;
      case Outcome::busy:
        return Error{Errc::io, "another process is materializing a file of this store: try again"};
      case Outcome::too_small:
      case Outcome::stopped:
        break;
    }
  }
  return sums;
}

Result<uint64_t> unmaterialize_contents(Store& store, std::span<const RowId> contents) {
  const auto materializer = CAKE_TRY(Materializer::open(store));
  uint64_t in_use = 0;
  for (const RowId content : contents) {
    const std::optional<ContentRow> row = CAKE_TRY(store.index().find_content(content));
    if (!row || !CAKE_TRY(materializer->is_materialized(*row))) continue;
    if (!CAKE_TRY(materializer->unmaterialize(content))) in_use++;
  }
  return in_use;
}

}  // namespace cake
