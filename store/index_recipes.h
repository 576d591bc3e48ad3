// What a publication adds to recipes.
#pragma once

#include <span>

#include "store/index.h"
#include "store/sqlite.h"

namespace cake {

// Writes the extents' digests into the segments of their contents.  Within a write transaction:
// segments are read, changed and written back.  A damaged segment, and an ordinal that cannot be,
// are logged and left out.
Status merge_digests(Connection& db, std::span<const PublishedExtent> extents);

}  // namespace cake
