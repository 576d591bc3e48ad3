// An existing Hugging Face cache, as found on this machine.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "store/snapshot.h"

namespace cake {

// A file of a cached revision.
struct HfCachedFile {
  std::string path;   // in the repo
  std::string where;  // the blob, or the file itself where links are not possible
  uint64_t bytes = 0;
  // What the blob's name says: sha256 (64 digits) or git blob id (40); empty for a file that is no
  // link.
  std::string etag;
};

struct HfCachedRevision {
  std::string commit;
  std::vector<HfCachedFile> files;  // sorted by path
  // All files of the commit, where the cache has that list (trees/COMMIT.json).
  std::optional<std::vector<TreeEntry>> tree;
};

struct HfCachedRepo {
  RepoName repo;
  std::vector<HfCachedRevision> revisions;
  std::vector<std::pair<std::string, std::string>> refs;  // name and commit
  // Left out: incomplete downloads, broken links, links that lead out of the cache.
  uint64_t skipped = 0;
};

// Of the folder that holds models--ORG--NAME, or of one such folder.  nullopt when it is neither.
// Names are hostile: nothing outside of the folder (links resolved) is taken.
Result<std::optional<std::vector<HfCachedRepo>>> scan_hf_cache(const std::string& folder);

// trees/COMMIT.json.  Errors: corrupt.
Result<std::vector<TreeEntry>> parse_hf_tree(std::string_view json);

// Where clients keep it: HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub.
std::string default_hf_cache();

}  // namespace cake
