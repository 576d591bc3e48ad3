// What a publication adds to recipes, and what goes with their digests.
#pragma once

#include <span>

#include "store/index.h"
#include "store/sqlite.h"

namespace cake {

// Writes the extents' digests into the segments of their contents.  Within a write transaction:
// segments are read, changed and written back.  A damaged segment, and an ordinal that cannot be,
// are logged and left out.
Status merge_digests(Connection& db, std::span<const PublishedExtent> extents);

// Within a transaction that takes digests away: what the hash of the whole said, it said of these.
Status forget_verification(Connection& db, RowId content);

}  // namespace cake
