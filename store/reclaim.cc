#include <algorithm>

#include "store/base/fault.h"
#include "store/evict.h"
#include "store/punch.h"
#include "store/store.h"

namespace cake {

bool Reclaimer::Kept::has(const Digest& digest) const {
  return std::binary_search(keys.begin(), keys.end(), digest_key(digest));
}

Result<Reclaimer::Kept> Reclaimer::kept(bool pins) {
  Kept kept;
  kept.contents = CAKE_TRY(Lease::all(directory_));
  if (pins)
    for (const RowId content : CAKE_TRY(upkeep_.pinned_contents()))
      kept.contents.push_back(content);
  std::sort(kept.contents.begin(), kept.contents.end());
  kept.contents.erase(std::unique(kept.contents.begin(), kept.contents.end()), kept.contents.end());
  kept.keys = CAKE_TRY(upkeep_.digest_keys(kept.contents));
  return kept;
}

uint64_t Reclaimer::disk_bytes(const Location& location) {
  return entry_range(location).length;
}

Result<Reclaimer::Gone> Reclaimer::remove(std::span<const ChunkRow> rows, const Kept& before,
                                          bool remember) {
  Gone sum;
  if (rows.empty()) return sum;
  CAKE_TRY(upkeep_.drop_chunks(rows, remember));
  fault_point("evict.dropped");
  const Kept now = CAKE_TRY(kept());
  std::vector<ChunkRow> back;
  std::vector<Location> gone;
  for (const ChunkRow& row : rows) {
    if (now.has(row.digest) && !before.has(row.digest))
      back.push_back(row);
    else
      gone.push_back(row.location);
  }
  if (!back.empty()) CAKE_TRY(upkeep_.restore_chunks(back));
  sum.chunks = gone.size();
  sum.bytes = CAKE_TRY(punch_entries(directory_ + "/packs", index_, gone));
  fault_point("evict.punched");
  return sum;
}

}  // namespace cake
