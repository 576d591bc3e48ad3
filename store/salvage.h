// What a dead writer left behind its last commit: checked by digest, indexed, and the rest cut off.
#pragma once

#include <functional>
#include <string>

#include "store/base/memory.h"
#include "store/base/result.h"
#include "store/index.h"
#include "store/pack.h"

namespace cake {

// The plain bytes of a chunk entry, from a file, decoded and with the checksum compared.
// `read` fills a span from the payload.  Errors: corrupt, and those of `read`.
Result<ChunkPtr> read_chunk(const Location& location, BufferPool& buffers,
                            const std::function<Status(MutableByteSpan)>& read);
// The same from its pack.  not_found: the pack is gone.
Result<ChunkPtr> read_chunk(const Location& location, BufferPool& buffers, PackReader& packs);

// The same from a payload in memory; a raw one becomes the chunk without being copied.
// `location` was checked by check_location.
Result<ChunkPtr> decode_chunk(const Location& location, BufferPool& buffers,
                              std::shared_ptr<ChunkBuffer> payload);
// Bounds a location that came from disk, before anything is allocated.
Status check_location(const Location& location);

// Indexes what lies behind the committed bytes of a pack that this process holds locked: names
// first, then chunks and recipes, durable before their rows.  Cuts the torn rest off and brings
// `committed_bytes` up to date.  Stopped anywhere, it can be done again.  A chunk that has a row
// elsewhere gets one here if it cannot be read there.
// not_found: an entry is of a content whose name only other packs can tell; the rest is left.
Status salvage(const std::string& directory, Index& index, BufferPool& buffers, LockedPack& pack);

// At opening: salvages every unsealed pack of the directory whose writer is gone, packs that the
// index does not know included; so a store whose index was lost is made again from its packs.
// Names first, from all of them.  One process at a time (DIRECTORY.lock); others wait.  A pack that
// cannot be salvaged is logged and left alone, and so is what might be named there.
Status salvage_directory(const std::string& directory, Index& index, BufferPool& buffers);

}  // namespace cake
