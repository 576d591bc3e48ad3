// What packs hold besides chunks: the small facts from which a lost index is made again.  Their
// layouts are in man/cakefs-store.5, "Records".  Decoding is total on hostile bytes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "store/base/digest.h"
#include "store/base/result.h"
#include "store/index.h"
#include "store/snapshot.h"

namespace cake {

struct SnapshotRecord {
  std::string source;
  RepoName repo;
  std::string commit;
  int64_t date = 0;
  std::vector<TreeEntry> entries;
};
Buffer encode_snapshot_record(const std::string& source, const Snapshot& snapshot);
Result<SnapshotRecord> decode_snapshot_record(ByteSpan bytes);

struct RefRecord {
  std::string source;
  RepoName repo;
  RefRow ref;
};
Buffer encode_ref_record(const RefRecord& record);
Result<RefRecord> decode_ref_record(ByteSpan bytes);

// A revision was pinned, or is so no longer.
struct PinRecord {
  std::string source;
  RepoName repo;
  std::string revision;
  bool is_pinned = true;
};
Buffer encode_pin_record(const PinRecord& record);
Result<PinRecord> decode_pin_record(ByteSpan bytes);

// What was recorded before of the commit, or of the whole repo when it is empty, is void.
struct RemovalRecord {
  std::string source;
  RepoName repo;
  std::string commit;
};
Buffer encode_removal_record(const RemovalRecord& record);
Result<RemovalRecord> decode_removal_record(ByteSpan bytes);

// The content is named by the entry's header.
struct RecipeRecord {
  RecipeRow recipe;
  uint64_t file_bytes = 0;
};
Buffer encode_recipe_record(const RecipeRow& recipe, uint64_t file_bytes);
Result<RecipeRecord> decode_recipe_record(ByteSpan bytes);

// Extents of one content, named by the entry's header, that equal chunks stored elsewhere.
struct SegmentItem {
  uint64_t ordinal = 0;
  uint32_t plain_bytes = 0;
  Digest digest;
};
// What a publication without bytes says.
std::vector<SegmentItem> segment_items(std::span<const PublishedExtent> extents);
Buffer encode_segment_record(const std::vector<SegmentItem>& items);
Result<std::vector<SegmentItem>> decode_segment_record(ByteSpan bytes);

}  // namespace cake
