// What of a content is here: its extents with their chunks, and the ranges that are missing.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "store/index.h"
#include "store/recipe.h"

namespace cake {

// An extent as the index knows it.
struct KnownExtent {
  uint64_t ordinal = 0;
  Extent extent;
  Digest digest;                     // zero: never seen here
  std::optional<Location> location;  // of the chunk; empty: evicted, or never here
};

// Calls `each` for every extent of a cut content, in order.  An error of `each` ends it.
Status each_extent(Index& index, const ContentRow& content, const Recipe& recipe,
                   const std::function<Status(const KnownExtent&)>& each);

// Ranges without a chunk, neighbours joined, in order; the whole file when it was never cut.
Result<std::vector<ByteRange>> missing_ranges(Index& index, const ContentRow& content);

}  // namespace cake
