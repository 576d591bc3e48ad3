#include "fs/hf_known.h"

#include <algorithm>

#include "fs/hf_names.h"

namespace cake {

namespace {

constexpr size_t kMaxTables = 8;

}  // namespace

HfKnown::HfKnown(ViewRows& rows) : rows_(rows), client_(rows.client()) {}

Result<std::vector<RepoName>> HfKnown::repos() {
  std::vector<RepoName> names;
  const std::vector<RepoRow> repos = CAKE_TRY(client_.store().index().list_repos(client_.source()));
  for (const RepoRow& repo : repos)
    if (repo.has_snapshot) names.push_back(repo.name);
  return names;
}

Result<bool> HfKnown::has_repo(const RepoName& repo) {
  const std::vector<std::string> known = CAKE_TRY(commits(repo));
  return !known.empty();
}

Result<std::vector<std::string>> HfKnown::commits(const RepoName& repo) {
  std::vector<std::string> commits;
  const std::optional<RepoRow> row =
      CAKE_TRY(client_.store().index().find_repo(client_.source(), repo));
  if (!row) return commits;
  const std::vector<SnapshotRow> snapshots =
      CAKE_TRY(client_.store().index().list_snapshots(row->id));
  for (const SnapshotRow& snapshot : snapshots) commits.push_back(snapshot.commit);
  std::sort(commits.begin(), commits.end());
  return commits;
}

Result<std::vector<RefRow>> HfKnown::refs(const RepoName& repo) {
  const std::optional<RepoRow> row =
      CAKE_TRY(client_.store().index().find_repo(client_.source(), repo));
  if (!row) return std::vector<RefRow>{};
  std::vector<RefRow> refs = CAKE_TRY(client_.store().index().list_refs(row->id));
  std::erase_if(refs, [](const RefRow& ref) { return is_commit(ref.revision); });
  return refs;
}

Result<HfKnown::BlobsPtr> HfKnown::blobs_of(const RepoName& repo, const std::string& commit) {
  {
    MutexLock lock(mutex_);
    for (auto place = tables_.begin(); place != tables_.end(); ++place)
      if ((*place)->commit == commit && (*place)->repo == repo) {
        tables_.splice(tables_.begin(), tables_, place);
        return tables_.front();
      }
  }
  const Client::SnapshotPtr snapshot = CAKE_TRY(client_.find_known_snapshot(repo, commit));
  auto blobs = std::make_shared<Blobs>();
  blobs->repo = repo;
  blobs->commit = commit;
  if (snapshot)
    for (uint32_t i = 0; i < snapshot->entries().size(); i++)
      blobs->entries.emplace_back(hf_blob_name(repo, commit, snapshot->entries()[i]), i);
  std::sort(blobs->entries.begin(), blobs->entries.end());
  MutexLock lock(mutex_);
  tables_.push_front(blobs);
  if (tables_.size() > kMaxTables) tables_.pop_back();
  return BlobsPtr(blobs);
}

Result<std::optional<RowId>> HfKnown::find_blob(const RepoName& repo, const std::string& etag) {
  const std::vector<std::string> known = CAKE_TRY(commits(repo));
  for (const std::string& commit : known) {
    const BlobsPtr blobs = CAKE_TRY(blobs_of(repo, commit));
    const auto found = std::lower_bound(blobs->entries.begin(), blobs->entries.end(),
                                        std::pair<std::string, uint32_t>{etag, 0});
    if (found == blobs->entries.end() || found->first != etag) continue;
    const Client::SnapshotPtr snapshot = CAKE_TRY(client_.find_known_snapshot(repo, commit));
    if (snapshot) return std::optional<RowId>(snapshot->content_id(found->second));
  }
  return std::optional<RowId>();
}

Result<std::vector<ListedName>> HfKnown::blobs(const RepoName& repo,
                                               const std::vector<std::string>& commits) {
  std::vector<ListedName> names;
  for (const std::string& commit : commits) {
    const Client::SnapshotPtr snapshot = CAKE_TRY(client_.find_known_snapshot(repo, commit));
    if (!snapshot) continue;
    for (uint32_t i = 0; i < snapshot->entries().size(); i++) {
      const RowId content = snapshot->content_id(i);
      ListedName& name = names.emplace_back();
      name.name = hf_blob_name(repo, commit, snapshot->entries()[i]);
      name.node = file_node(content);
      name.bytes = snapshot->entries()[i].bytes;
      name.mtime = CAKE_TRY(rows_.mtime_of(content));
    }
  }
  const auto by_name = [](const ListedName& a, const ListedName& b) { return a.name < b.name; };
  const auto is_same = [](const ListedName& a, const ListedName& b) { return a.name == b.name; };
  std::sort(names.begin(), names.end(), by_name);
  names.erase(std::unique(names.begin(), names.end(), is_same), names.end());
  return names;
}

}  // namespace cake
