#include <algorithm>
#include <map>

#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/evict.h"
#include "store/materialize_plan.h"
#include "store/pack.h"
#include "store/store.h"

namespace cake {

namespace {

constexpr uint64_t kBlockBytes = 4096;

bool is_big(const Location& location) {
  return location.encoded_bytes >= kBigPayloadBytes;
}

// What an entry has for itself: a big one all blocks up to where the next can begin.
ByteRange entry_range(const Location& location) {
  const uint64_t begin = location.offset - kEntryHeaderBytes;
  const uint64_t end = align_up(location.offset + location.encoded_bytes,
                                is_big(location) ? kBigAlignment : kSmallAlignment);
  return {begin, end - begin};
}

uint64_t align_down(uint64_t offset) {
  return offset / kBlockBytes * kBlockBytes;
}

// Nothing lies there: neither an entry of a chunk that stays or of a record, nor what is left of
// one.
bool is_padding(const File& pack, ByteRange gap) {
  if (gap.length < kEntryHeaderBytes) return true;
  Buffer bytes(gap.length);
  const Result<size_t> got = pack.read_at(gap.offset, bytes);
  return got && *got == gap.length && std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) {
           return byte == std::byte{};
         });
}

// Whole blocks in which nothing but these entries lies.
std::vector<ByteRange> free_ranges(const File& pack, std::vector<Location>& locations) {
  std::sort(locations.begin(), locations.end(),
            [](const Location& a, const Location& b) { return a.offset < b.offset; });
  std::vector<ByteRange> runs;
  for (const Location& location : locations) {
    const ByteRange range = entry_range(location);
    // Neighbours, with nothing but padding between them: before a big entry there is room for
    // others.
    const uint64_t end = runs.empty() ? 0 : runs.back().end();
    const bool joins =
        !runs.empty() &&
        range.offset <= align_up(end, is_big(location) ? kBigAlignment : kSmallAlignment) &&
        (range.offset <= end || is_padding(pack, {end, range.offset - end}));
    if (joins)
      runs.back().length = std::max(end, range.end()) - runs.back().offset;
    else
      runs.push_back(range);
  }
  std::vector<ByteRange> blocks;
  for (const ByteRange& run : runs) {
    const uint64_t begin = align_up(run.offset, kBlockBytes);
    if (align_down(run.end()) > begin) blocks.push_back({begin, align_down(run.end()) - begin});
  }
  return blocks;
}

}  // namespace

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
  sum.bytes = CAKE_TRY(punch(std::move(gone)));
  fault_point("evict.punched");
  return sum;
}

Result<uint64_t> Reclaimer::punch(std::vector<Location> locations) {
  uint64_t freed = 0;
  std::map<uint32_t, std::vector<Location>> by_pack;
  for (const Location& location : locations) by_pack[location.pack].push_back(location);
  for (auto& [id, members] : by_pack) {
    const std::optional<Index::PackRow> row = CAKE_TRY(index_.find_pack(id));
    // Who has a materialized file mapped would read zeros: it goes as a whole (Materializer).
    if (!row || row->name.ends_with(kRawSuffix)) continue;
    auto file = File::open(cat(directory_, "/packs/", row->name), File::Mode::read_write);
    if (!file && file.error().code == Errc::not_found) continue;
    if (!file) return file.error();
    const uint64_t before = CAKE_TRY(file->disk_bytes());
    for (const ByteRange& range : free_ranges(*file, members)) CAKE_TRY(file->punch_hole(range));
    const uint64_t after = CAKE_TRY(file->disk_bytes());
    freed += before - std::min(before, after);  // its writer may be at it
  }
  return freed;
}

}  // namespace cake
