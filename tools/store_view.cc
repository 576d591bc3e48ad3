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

Result<RepoContents> repo_contents(Index& index, const StoredRepo& repo, const std::string& commit,
                                   const std::string& path) {
  const std::string folder = path + "/";
  std::map<RowId, uint64_t> bytes_of;
  for (const SnapshotRow& row : repo.snapshots) {
    if (!commit.empty() && row.commit != commit) continue;
    const auto snapshot = CAKE_TRY(index.find_snapshot(repo.row.id, row.commit));
    if (!snapshot) continue;  // removed meanwhile
    for (uint32_t i = 0; i < snapshot->entries().size(); i++) {
      const TreeEntry& entry = snapshot->entries()[i];
      if (path.empty() || entry.path == path || entry.path.starts_with(folder))
        bytes_of[snapshot->content_id(i)] = entry.bytes;
    }
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

double SetSummary::verified_percent() const {
  if (bytes == 0) return 100;
  return 100.0 * static_cast<double>(verified_bytes) / static_cast<double>(bytes);
}

double SetSummary::ratio() const {
  if (usage.encoded_bytes == 0) return 0;
  return static_cast<double>(usage.logical_bytes) / static_cast<double>(usage.encoded_bytes);
}

Result<Holders> count_holders(Index& index, const std::vector<StoredRepo>& repos,
                              bool by_revision) {
  Holders holders;
  const auto count = [&](const StoredRepo& repo, const std::string& commit) -> Status {
    const RepoContents contents = CAKE_TRY(repo_contents(index, repo, commit));
    for (const RowId id : contents.ids) holders[id]++;
    return {};
  };
  for (const StoredRepo& repo : repos) {
    if (!by_revision) {
      CAKE_TRY(count(repo, ""));
      continue;
    }
    for (const SnapshotRow& snapshot : repo.snapshots) CAKE_TRY(count(repo, snapshot.commit));
  }
  return holders;
}

Result<uint64_t> own_bytes(Index& index, const std::vector<RowId>& contents,
                           const Holders& holders) {
  std::vector<RowId> own;
  for (const RowId id : contents) {
    const auto found = holders.find(id);
    if (found == holders.end() || found->second <= 1) own.push_back(id);
  }
  return CAKE_TRY(index.set_usage(own)).exclusive_encoded_bytes;
}

Result<SetSummary> summarise(Index& index, const StoredRepo& repo, const std::string& commit,
                             const Holders& holders) {
  const RepoContents contents = CAKE_TRY(repo_contents(index, repo, commit));
  SetSummary sum;
  sum.bytes = contents.bytes;
  sum.usage = CAKE_TRY(index.set_usage(contents.ids));
  sum.usage.exclusive_encoded_bytes = CAKE_TRY(own_bytes(index, contents.ids, holders));
  for (const RowId id : contents.ids) {
    sum.cached_bytes += CAKE_TRY(index.cached(id)).bytes;
    const std::optional<ContentRow> row = CAKE_TRY(index.find_content(id));
    if (!row) continue;
    sum.last_access = std::max(sum.last_access, row->last_access);
    if (row->verified) sum.verified_bytes += row->bytes;
  }
  return sum;
}

}  // namespace cake
