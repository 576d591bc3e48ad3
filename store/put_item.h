// What is on its way to disk: a put, the pack entry that it becomes, the group that gives it a row.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "store/base/clock.h"
#include "store/chunk_store.h"
#include "store/pack.h"
#include "store/pack_record.h"

namespace cake {

// A put.  One thread at a time has it: a task of the pool, then the writer or whoever ends it.
struct PutJob {
  PutRequest request;
  uint64_t sequence = 0;  // see PutQueue
  uint32_t plain_bytes = 0;
  Digest digest;
  Digest content;             // content_name, parsed
  bool encode_later = false;  // stored raw for want of processors
};
using PutJobPtr = std::shared_ptr<PutJob>;

// A chunk at rest that an encoder has not seen.
struct UnencodedChunk {
  EntryHeader header;
  Location location;
};

// An entry on its way to the pack.
struct PutItem {
  EntryHeader header;
  Buffer encoded;                    // the payload; of a raw chunk it is job->request.plain
  PutJobPtr job;                     // of a chunk
  std::optional<Location> replaces;  // of a chunk that was stored unencoded
  uint64_t sequence = 0;

  bool is_record() const { return job == nullptr && !replaces; }
  ByteSpan payload() const {
    const bool is_raw_chunk = job != nullptr && header.codec == CodecId::raw;
    return is_raw_chunk ? job->request.plain->bytes() : ByteSpan(encoded);
  }
};

// What is made durable and published together.  All its locations are in one pack.
struct PutGroup {
  std::shared_ptr<const PackWriter> pack;  // null when no pack could be had: only digests then
  uint64_t end = 0;                        // of the pack's entries that belong to it
  bool seal = false;                       // the pack's last
  std::vector<PublishedExtent> extents;
  std::map<Digest, std::vector<SegmentItem>> deduped;  // by content name
  std::vector<uint64_t> sequences;
  std::vector<UnencodedChunk> unencoded;
  uint64_t bytes = 0;
  SteadyTime since;
  bool is_empty() const { return sequences.empty() && !seal; }
};

}  // namespace cake
