// Gives the disk back what entries of packs occupy, once no row names them.
#pragma once

#include <string>
#include <vector>

#include "store/base/file.h"
#include "store/index.h"

namespace cake {

// What an entry has for itself: a big one all blocks up to where the next can begin.
ByteRange entry_range(const Location& location);

// The chunks' rows are gone, on the disk too (Index::sync), or a power loss would bring them back
// without their bytes.  Who has read such a row reads zeros now, which its checksum tells, and asks
// the index again.  Punches whole blocks in which nothing but these entries lies; small entries
// share theirs, and keep them until their neighbours go too.  Answers the bytes that the disk got
// back, as the blocks tell.
Result<uint64_t> punch_entries(const File& pack, std::vector<Location> locations);
// The same in any packs of the folder, but for materialized files: who has one mapped would read
// zeros.
Result<uint64_t> punch_entries(const std::string& packs, Index& index,
                               const std::vector<Location>& locations);

}  // namespace cake
