#include "store/coverage.h"

#include <algorithm>

namespace cake {

namespace {

// As many digests as a segment holds: one row of the index at a time.
constexpr uint64_t kReadPortion = 1024;

}  // namespace

Status each_extent(Index& index, const ContentRow& content, const Recipe& recipe,
                   const std::function<Status(const KnownExtent&)>& each) {
  for (uint64_t first = 0; first < recipe.extents.count(); first += kReadPortion) {
    const uint64_t count = std::min<uint64_t>(kReadPortion, recipe.extents.count() - first);
    const std::vector<Digest> digests = CAKE_TRY(index.find_digests(content.id, first, count));
    std::vector<Digest> known;
    for (const Digest& digest : digests)
      if (!digest.is_zero()) known.push_back(digest);
    const auto locations = CAKE_TRY(index.find_chunks(known));
    size_t next = 0;
    for (uint64_t i = 0; i < count; i++) {
      KnownExtent extent{first + i, recipe.extents.at(first + i), digests[i], std::nullopt};
      if (!digests[i].is_zero()) extent.location = locations[next++];
      CAKE_TRY(each(extent));
    }
  }
  return {};
}

Result<std::vector<ByteRange>> missing_ranges(Index& index, const ContentRow& content) {
  std::vector<ByteRange> missing;
  if (content.bytes == 0) return missing;
  const std::optional<Recipe> recipe = CAKE_TRY(load_recipe(index, content));
  if (!recipe) return std::vector<ByteRange>{{0, content.bytes}};
  CAKE_TRY(each_extent(index, content, *recipe, [&](const KnownExtent& known) -> Status {
    if (known.location) return {};
    if (!missing.empty() && missing.back().end() == known.extent.offset)
      missing.back().length += known.extent.length;
    else
      missing.push_back({known.extent.offset, known.extent.length});
    return {};
  }));
  return missing;
}

}  // namespace cake
