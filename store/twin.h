// The same file under another name, repo or source: nothing to fetch.
#pragma once

#include "store/store.h"

namespace cake {

// Gives `content` the cut and the digests of another content whose bytes are the same: one that a
// hash of theirs names alike, and whose whole-file hash was computed here (a hash that a hub merely
// claims is no proof).  Answers how many of its bytes are here by that; 0 when there is no such
// other, or `content` was cut differently.  The chunks are shared, so this takes no space.
Result<uint64_t> adopt_twin(Store& store, const ContentRow& content);
// What adopt_twin would answer; changes nothing.
Result<uint64_t> twin_bytes(Index& index, const ContentRow& content);

}  // namespace cake
