// The index as eviction, removal and checking see it: whole tables, in portions.
//
// Connections of its own, so that neither readers nor publishers of this process wait for a long
// scan.  Its deletions are on the disk when they return (synchronous=FULL): what lies behind a
// deleted row may be punched at once, and no power loss brings the row back.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/index.h"

namespace cake {

struct ChunkRow {
  Digest digest;
  Location location;
  int64_t last_access = 0;  // Unix seconds
  unsigned uses = 0;        // later readings, at most kMaxUses; see evict_policy.h
};

// A pinned revision: what it leads to is not evicted, now and after later pulls.
struct PinRow {
  RowId repo = 0;
  std::string revision;
  int64_t pinned_at = 0;
};

// Thread-safe: calls are serialised.  Errors as Index's.
class IndexUpkeep {
 public:
  static constexpr unsigned kMaxUses = 3;
  // Reads this close together are one use: a file is read in many requests.
  static constexpr int64_t kUseSeconds = 60;
  // Rows a transaction: a publisher waits for one at most.
  static constexpr size_t kPortion = 2'000;

  static Result<std::unique_ptr<IndexUpkeep>> open(const std::string& path);
  ~IndexUpkeep();

  // --- looking ---
  // In order of digests; an error of `each` ends it.
  Status each_chunk(const std::function<Status(const ChunkRow&)>& each);
  // digest_key of every extent known of the contents; sorted, without duplicates.
  Result<std::vector<uint64_t>> digest_keys(std::span<const RowId> contents);
  // The same of all other contents than these.
  Result<std::vector<uint64_t>> digest_keys_but(std::span<const RowId> contents);
  // Contents of what the pinned revisions lead to now; sorted.
  Result<std::vector<RowId>> pinned_contents();
  Result<std::vector<PinRow>> list_pins();
  // Contents that some snapshot names; sorted.
  Result<std::vector<RowId>> named_contents();
  Result<std::vector<RowId>> all_contents();
  // Whether the known extents and their sums are what the digests say: a corrupt in the Result, an
  // error of the check itself around it.  `repairs`: the sums are made right.
  Result<Status> check_segments(RowId content, bool repairs);

  // --- chunks ---
  // Removes rows that still say what they said.  `remember`: as ghosts, for when they come back.
  Status drop_chunks(std::span<const ChunkRow> rows, bool remember);
  Status restore_chunks(std::span<const ChunkRow> rows);
  // What was evicted lately, and so would be proven if it came back; sorted by key.
  struct Ghost {
    uint64_t key = 0;  // digest_key
    bool is_proven = false;
    bool operator<(const Ghost& other) const { return key < other.key; }
  };
  Result<std::vector<Ghost>> ghosts();
  Status drop_ghosts(std::span<const uint64_t> keys);
  // Forgets all but about the `count` youngest ghosts.
  Status trim_ghosts(uint64_t count);
  // What eviction has learnt (evict_policy.h); `otherwise` when nothing is known.
  Result<double> probation_share(double otherwise);
  Status set_probation_share(double share);
  // Chunks that were read.
  Status touch_chunks(std::span<const Digest> digests, int64_t now);
  Status touch_contents(std::span<const RowId> contents, int64_t now);

  // --- names ---
  // False when there was none.
  Result<bool> drop_pin(RowId repo, const std::string& revision);
  // A commit's listing and the revisions that lead to it; all of the repo's when `commit` is empty.
  // Pins of revisions that go, go with them.
  Status drop_snapshots(RowId repo, const std::string& commit);
  // How a content is cut and what its extents are; the row itself stays, so that its inode number
  // does.
  Status forget_contents(std::span<const RowId> contents);

  // --- packs ---
  // Ids of those that are files kept whole (materialized_index.h); sorted.
  Result<std::vector<uint32_t>> whole_packs();
  // False while a chunk row leads into it.
  Result<bool> drop_pack(uint32_t id);
  // A pack that ends before what is indexed of it: sealed, with this length.
  Status shorten_pack(uint32_t id, uint64_t committed_bytes);
  // PRAGMA integrity_check: lines that name what is wrong; empty when nothing is.
  Result<std::vector<std::string>> integrity_problems();

 private:
  explicit IndexUpkeep(std::unique_ptr<IndexConnections> connections);

  const std::unique_ptr<IndexConnections> connections_;  // each with its lock
};

}  // namespace cake
