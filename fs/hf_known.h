// What the store knows of repos, as a Hugging Face cache would hold it.
#pragma once

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fs/view_rows.h"

namespace cake {

// Thread-safe.  Asks the index; never the network.
class HfKnown {
 public:
  explicit HfKnown(ViewRows& rows);  // outlives this

  Result<std::vector<RepoName>> repos();
  Result<bool> has_repo(const RepoName& repo);
  Result<std::vector<std::string>> commits(const RepoName& repo);  // sorted
  // Without commits that are their own ref: clients have no such files.
  Result<std::vector<RefRow>> refs(const RepoName& repo);
  // The content behind an ETag in one of the repo's commits.
  Result<std::optional<RowId>> find_blob(const RepoName& repo, const std::string& etag)
      EXCLUDES(mutex_);
  // All of them, each once, sorted; commits as given by commits().
  Result<std::vector<ListedName>> blobs(const RepoName& repo,
                                        const std::vector<std::string>& commits);

 private:
  // ETags of a commit, sorted, each with its entry.
  struct Blobs {
    RepoName repo;
    std::string commit;
    std::vector<std::pair<std::string, uint32_t>> entries;
  };
  using BlobsPtr = std::shared_ptr<const Blobs>;
  Result<BlobsPtr> blobs_of(const RepoName& repo, const std::string& commit) EXCLUDES(mutex_);

  // Constant after construction.
  ViewRows& rows_;
  Client& client_;

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::list<BlobsPtr> tables_ GUARDED_BY(mutex_);  // newest first
};

}  // namespace cake
