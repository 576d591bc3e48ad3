#include "store/punch.h"

#include <algorithm>
#include <map>
#include <utility>

#include "store/materialize_plan.h"
#include "store/pack.h"

namespace cake {

namespace {

constexpr uint64_t kBlockBytes = 4096;

bool is_big(const Location& location) {
  return location.encoded_bytes >= kBigPayloadBytes;
}

}  // namespace

ByteRange entry_range(const Location& location) {
  const uint64_t begin = location.offset - kEntryHeaderBytes;
  const uint64_t end = align_up(location.offset + location.encoded_bytes,
                                is_big(location) ? kBigAlignment : kSmallAlignment);
  return {begin, end - begin};
}

namespace {

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

Result<uint64_t> punch_entries(const File& pack, std::vector<Location> locations) {
  const uint64_t before = CAKE_TRY(pack.disk_bytes());
  for (const ByteRange& range : free_ranges(pack, locations)) CAKE_TRY(pack.punch_hole(range));
  const uint64_t after = CAKE_TRY(pack.disk_bytes());
  return before - std::min(before, after);  // its writer may be at it
}

Result<uint64_t> punch_entries(const std::string& packs, Index& index,
                               const std::vector<Location>& locations) {
  uint64_t freed = 0;
  std::map<uint32_t, std::vector<Location>> by_pack;
  for (const Location& location : locations) by_pack[location.pack].push_back(location);
  for (auto& [id, members] : by_pack) {
    const std::optional<Index::PackRow> row = CAKE_TRY(index.find_pack(id));
    if (!row || row->name.ends_with(kRawSuffix)) continue;
    auto file = File::open(cat(packs, "/", row->name), File::Mode::read_write);
    if (!file && file.error().code == Errc::not_found) continue;
    if (!file) return file.error();
    freed += CAKE_TRY(punch_entries(*file, std::move(members)));
  }
  return freed;
}

}  // namespace cake
