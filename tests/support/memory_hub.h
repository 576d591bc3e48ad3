// Repos in memory, or made of patterns, as a hub's content.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fetch/hub_content.h"
#include "store/base/mutex.h"

namespace cake {

// Thread-safe.
class MemoryHub final : public HubContent {
 public:
  // Repos that are not here are looked for in `other` (may be null; outlives this).
  explicit MemoryHub(HubContent* other) : other_(other) {}

  // Makes or replaces a file; the branch moves to a new commit, the old one still resolves.
  void add_bytes(const RepoName& repo, const std::string& revision, const std::string& path,
                 Buffer bytes);
  // `bytes` of the pattern of `seed`.  The hash is the true one up to 256 MiB; beyond that it is
  // made up, unless `is_hashed`: hashing takes a second a GiB.
  void add_pattern(const RepoName& repo, const std::string& revision, const std::string& path,
                   uint64_t bytes, uint64_t seed, bool is_hashed = false);
  void remove(const RepoName& repo, const std::string& revision, const std::string& path);

  Result<std::vector<HubRepo>> list_repos(RepoType type) override;
  bool has_repo(const RepoName& repo) override;
  void get_refs(const RepoName& repo, Done<std::vector<HubRef>> done) override;
  void get_revision(const RepoName& repo, const std::string& revision,
                    Done<HubRevisionPtr> done) override;

 private:
  struct Repo {
    std::map<std::string, std::map<std::string, HubFile>> revisions;
    std::map<std::string, HubRevisionPtr> heads;    // of revisions, when made
    std::map<std::string, HubRevisionPtr> commits;  // announced
  };
  void add(const RepoName& repo, const std::string& revision, HubFile file) EXCLUDES(mutex_);
  HubRevisionPtr head(Repo& repo, const std::string& revision) REQUIRES(mutex_);

  HubContent* const other_;
  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::map<RepoName, Repo> repos_ GUARDED_BY(mutex_);
};

}  // namespace cake
