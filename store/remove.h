// Taking things out of the store on purpose: repos, revisions, and what nobody needs.
//
// What is open is never touched, and what other names still lead to stays.  A removal is recorded
// in the packs, so that an index made again from them does not bring the names back.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/index_upkeep.h"
#include "store/store.h"

namespace cake {

// A commit of a repo, or all of them.
struct RemovalTarget {
  std::string source;
  RepoRow repo;
  std::string commit;  // empty: the whole repo
};

struct PruneOptions {
  // Commits that no revision leads to, and contents that no commit names.
  bool detached = false;
  // Chunks of files that are not here completely.
  bool incomplete = false;
  // Chunks not read for so long.
  std::optional<int64_t> max_age_s;
  // Least recently used chunks, until the store is so large.
  std::optional<uint64_t> max_bytes;
};

// What goes, or went.
struct Removed {
  uint64_t snapshots = 0;
  uint64_t contents = 0;  // whose recipes go too
  uint64_t chunks = 0;
  uint64_t bytes = 0;         // given back to the disk; of a plan, what that will be
  uint64_t in_use_bytes = 0;  // would have gone, but a file is open, or pinned
};

// A plan looks and changes nothing.
Result<Removed> plan_removal(Store& store, std::span<const RemovalTarget> targets);
Result<Removed> remove_targets(Store& store, std::span<const RemovalTarget> targets);

Result<Removed> plan_prune(Store& store, const PruneOptions& options);
Result<Removed> prune(Store& store, const PruneOptions& options);

}  // namespace cake
