#include "tools/store_view.h"

#include <algorithm>
#include <map>

#include "store/base/bytes.h"

namespace cake {

Result<std::vector<StoredRepo>> list_stored_repos(Index& index) {
  std::vector<StoredRepo> repos;
  for (const std::string& source : CAKE_TRY(index.list_sources())) {
    for (RepoRow& row : CAKE_TRY(index.list_repos(source))) {
      StoredRepo repo{source, std::move(row), {}, {}};
      repo.refs = CAKE_TRY(index.list_refs(repo.row.id));
      repo.snapshots = CAKE_TRY(index.list_snapshots(repo.row.id));
      repos.push_back(std::move(repo));
    }
  }
  std::sort(repos.begin(), repos.end(), [](const StoredRepo& a, const StoredRepo& b) {
    return std::tie(a.row.name, a.source) < std::tie(b.row.name, b.source);
  });
  return repos;
}

std::string stored_name(const RepoName& name) {
  return cat(repo_type_singular(name.type), "/", name.id);
}

Result<RepoContents> repo_contents(Index& index, const StoredRepo& repo,
                                   const std::string& commit) {
  std::map<RowId, uint64_t> bytes_of;
  for (const SnapshotRow& row : repo.snapshots) {
    if (!commit.empty() && row.commit != commit) continue;
    const auto snapshot = CAKE_TRY(index.find_snapshot(repo.row.id, row.commit));
    if (!snapshot) continue;  // removed meanwhile
    for (uint32_t i = 0; i < snapshot->entries().size(); i++)
      bytes_of[snapshot->content_id(i)] = snapshot->entries()[i].bytes;
  }
  RepoContents contents;
  for (const auto& [id, bytes] : bytes_of) {
    contents.ids.push_back(id);
    // Sizes are what a hub claims: a sum that wraps would be nonsense, a full one is not.
    contents.bytes = checked_add(contents.bytes, bytes).value_or(UINT64_MAX);
  }
  return contents;
}

double SetSummary::cached_percent() const {
  if (bytes == 0) return 100;
  return 100.0 * static_cast<double>(cached_bytes) / static_cast<double>(bytes);
}

double SetSummary::ratio() const {
  if (usage.encoded_bytes == 0) return 0;
  return static_cast<double>(usage.logical_bytes) / static_cast<double>(usage.encoded_bytes);
}

Result<SetSummary> summarise(Index& index, const StoredRepo& repo, const std::string& commit) {
  const RepoContents contents = CAKE_TRY(repo_contents(index, repo, commit));
  SetSummary sum;
  sum.bytes = contents.bytes;
  sum.usage = CAKE_TRY(index.set_usage(contents.ids));
  for (const RowId id : contents.ids) {
    sum.cached_bytes += CAKE_TRY(index.cached(id)).bytes;
    const std::optional<ContentRow> row = CAKE_TRY(index.find_content(id));
    if (row) sum.last_access = std::max(sum.last_access, row->last_access);
  }
  return sum;
}

}  // namespace cake
