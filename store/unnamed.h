// Finds entries of packs that no row names, and gives the disk back what they occupy.
//
// They come from evictions that were killed between rows and holes, from processes that were killed
// after they had lost a chunk to another, and from rows dropped because their bytes were wrong.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "store/index_upkeep.h"

namespace cake {

// Blocks of the packs that have entries.
Result<uint64_t> entry_pack_blocks(const std::string& packs);

// Goes through packs until the disk got back `bytes`, and answers what it got.  Sealed packs with
// nothing left in them, records neither, are unlinked; what a condemned one has behind its
// committed length is cut off.
//
// Safe beside writers, of which none is asked: below a pack's committed length rows are there
// before that length says so, and only who dropped a row gives it back.  He does it with the
// store's space lock, which the caller holds.
Result<uint64_t> punch_unnamed(const std::string& packs, Index& index, IndexUpkeep& upkeep,
                               uint64_t bytes);

}  // namespace cake
