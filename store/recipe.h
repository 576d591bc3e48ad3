// A content's recipe: where it is cut, and the digests of the extents that are known.
#pragma once

#include <optional>
#include <vector>

#include "store/format/format.h"
#include "store/store.h"

namespace cake {

// Digests are not here: a reader loads them a segment at a time (Index::find_digests).
struct Recipe {
  Cutter cutter = Cutter::uniform;
  Extents extents;
};

// Cuts again from the stored head.  nullopt: the content was never cut.
// Errors: corrupt, when the stored head does not give the stored cutter's cut.
Result<std::optional<Recipe>> load_recipe(Index& index, const ContentRow& content);

// Records a content's cut in index and packs.  First writer wins: load it back before use.
Status begin_recipe(Store& store, const ContentRow& content, const Cut& cut, ByteSpan head);

}  // namespace cake
