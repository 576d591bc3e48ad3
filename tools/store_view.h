// What the store holds, summed up for `cake ls`, `cake du` and their like.
#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/index.h"

namespace cake {

struct StoredRepo {
  std::string source;
  RepoRow row;
  std::vector<RefRow> refs;
  std::vector<SnapshotRow> snapshots;
};

// Of every source, sorted by name.
Result<std::vector<StoredRepo>> list_stored_repos(Index& index);

// "model/ORG/NAME", as `hf cache` names repos.
std::string stored_name(const RepoName& name);

// Distinct contents of a repo's snapshots; of one when `commit` is not empty, and of the file or
// folder `path` when that is not.
struct RepoContents {
  std::vector<RowId> ids;  // sorted
  uint64_t bytes = 0;      // sum of their sizes
};
Result<RepoContents> repo_contents(Index& index, const StoredRepo& repo, const std::string& commit,
                                   const std::string& path = "");

struct SetSummary {
  uint64_t bytes = 0;  // as the hub has them, cached or not
  uint64_t cached_bytes = 0;
  uint64_t verified_bytes = 0;  // of files whose whole-file hash was computed here and is right
  Index::SetUsage usage;
  int64_t last_access = 0;
  double cached_percent() const;
  double verified_percent() const;
  double ratio() const;  // logical to stored; 0 when nothing is stored
};

// How many repos (or revisions) hold a content: two with the same file share its row.
using Holders = std::unordered_map<RowId, unsigned>;
Result<Holders> count_holders(Index& index, const std::vector<StoredRepo>& repos, bool by_revision);

// Stored bytes that only these contents need: what is freed when their only holder goes.
Result<uint64_t> own_bytes(Index& index, const std::vector<RowId>& contents,
                           const Holders& holders);

// `usage.exclusive_encoded_bytes` is own_bytes.
Result<SetSummary> summarise(Index& index, const StoredRepo& repo, const std::string& commit,
                             const Holders& holders);

}  // namespace cake
