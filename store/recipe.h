// A content's recipe: how it is cut, and which chunks its extents are.
#pragma once

#include <optional>
#include <vector>

#include "store/base/digest.h"
#include "store/base/result.h"
#include "store/format/format.h"
#include "store/index.h"
#include "store/store.h"

namespace cake {

// What an open file keeps in memory.  A zero digest: not known yet.
struct Recipe {
  Cutter cutter = Cutter::uniform;
  Extents extents;
  std::vector<Digest> digests;  // one an extent
};

// The recipe as the index has it: cut again from the head, with the digests known now; nullopt when
// the content was never cut.  corrupt: the head does not give the recorded cut.
Result<std::optional<Recipe>> load_recipe(Index& index, const ContentRow& content);

// Makes a content's recipe, in the index and (durable with the next group) in a pack.  `head` is
// what the cut was made from; what is behind the header is not kept.  The first recipe of a content
// stays: load it after this, it may be another process's.
Status begin_recipe(Store& store, const ContentRow& content, const Cut& cut, ByteSpan head);

}  // namespace cake
