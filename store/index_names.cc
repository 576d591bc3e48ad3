// Sources, repos, refs, pins, authors and views.
#include <algorithm>

#include "store/index_connections.h"
#include "store/index_rows.h"

namespace cake {

namespace {

constexpr std::string_view kFindSource = "SELECT id FROM source WHERE name = ?1";
constexpr std::string_view kAddSource =
    "INSERT INTO source (name) VALUES (?1) ON CONFLICT DO NOTHING";
constexpr std::string_view kFindRepo =
    "SELECT id FROM repo WHERE source = ?1 AND type = ?2 AND name = ?3";
constexpr std::string_view kAddRepo =
    "INSERT INTO repo (source, type, name) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
constexpr std::string_view kFindView =
    "SELECT id FROM view WHERE layout = ?1 AND source = ?2 AND type = ?3 AND repo = ?4"
    " AND typed = ?5 AND commit_id = ?6";
constexpr std::string_view kAddView =
    "INSERT INTO view (layout, source, type, repo, typed, commit_id)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";

}  // namespace

// --- Sources and repos ---

Result<RowId> Index::get_source(const std::string& source) {
  {
    MutexLock lock(connections_->read_mutex);
    const std::optional<RowId> found =
        CAKE_TRY(find_id(*connections_->reader, kFindSource, source));
    if (found) return *found;
  }
  MutexLock lock(connections_->write_mutex);
  return find_or_insert(*connections_->writer, kFindSource, kAddSource, source);
}

Result<RowId> Index::get_repo(const std::string& source, const RepoName& name) {
  const std::optional<RepoRow> known = CAKE_TRY(find_repo(source, name));
  if (known) return known->id;
  const RowId source_id = CAKE_TRY(get_source(source));
  MutexLock lock(connections_->write_mutex);
  return find_or_insert(*connections_->writer, kFindRepo, kAddRepo, source_id, name.type, name.id);
}

Result<std::optional<RepoRow>> Index::find_repo(const std::string& source, const RepoName& name) {
  MutexLock lock(connections_->read_mutex);
  const std::optional<RowId> source_id =
      CAKE_TRY(find_id(*connections_->reader, kFindSource, source));
  if (!source_id) return std::nullopt;
  const std::optional<RowId> id =
      CAKE_TRY(find_id(*connections_->reader, kFindRepo, *source_id, name.type, name.id));
  if (!id) return std::nullopt;
  return RepoRow{*id, name};
}

Result<std::vector<RepoRow>> Index::list_repos(const std::string& source) {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT repo.id, repo.type, repo.name,"
      " EXISTS (SELECT 1 FROM snapshot WHERE snapshot.repo = repo.id)"
      " FROM repo JOIN source ON source.id = repo.source"
      " WHERE source.name = ?1 ORDER BY repo.type, repo.name");
  rows.bind(source);
  std::vector<RepoRow> repos;
  while (CAKE_TRY(rows.step()))
    repos.push_back({rows.number(0), RepoName{static_cast<RepoType>(rows.number(1)), rows.text(2)},
                     rows.number(3) != 0});
  return repos;
}

Result<std::vector<std::string>> Index::list_sources() {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare("SELECT name FROM source ORDER BY id");
  rows.bind();
  std::vector<std::string> sources;
  while (CAKE_TRY(rows.step())) sources.push_back(rows.text(0));
  return sources;
}

// --- Refs and pins ---

Result<std::optional<RefRow>> Index::find_ref(RowId repo, const std::string& revision) {
  MutexLock lock(connections_->read_mutex);
  Statement row = connections_->reader->prepare(
      "SELECT commit_id, resolved_at FROM ref WHERE repo = ?1 AND revision = ?2");
  row.bind(repo, revision);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  return RefRow{revision, row.text(0), row.integer(1)};
}

Result<std::vector<RefRow>> Index::list_refs(RowId repo) {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT revision, commit_id, resolved_at FROM ref WHERE repo = ?1 ORDER BY revision");
  rows.bind(repo);
  std::vector<RefRow> refs;
  while (CAKE_TRY(rows.step())) refs.push_back({rows.text(0), rows.text(1), rows.integer(2)});
  return refs;
}

Status Index::put_ref(RowId repo, const RefRow& ref) {
  MutexLock lock(connections_->write_mutex);
  Statement statement = connections_->writer->prepare(
      "INSERT OR REPLACE INTO ref (repo, revision, commit_id, resolved_at)"
      " VALUES (?1, ?2, ?3, ?4)");
  return statement.bind(repo, ref.revision, ref.commit, ref.resolved_at).run();
}

Status Index::put_pin(RowId repo, const std::string& revision, int64_t pinned_at) {
  MutexLock lock(connections_->write_mutex);
  Statement statement = connections_->writer->prepare(
      "INSERT INTO pin (repo, revision, pinned_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING");
  return statement.bind(repo, revision, pinned_at).run();
}

// --- Authors and views ---

Result<std::optional<Index::AuthorListing>> Index::find_author(const std::string& source,
                                                               RepoType type,
                                                               const std::string& author) {
  MutexLock lock(connections_->read_mutex);
  Statement row = connections_->reader->prepare(
      "SELECT listed_at, ids FROM author WHERE source = (SELECT id FROM source WHERE name = ?1)"
      " AND type = ?2 AND name = ?3");
  row.bind(source, type, author);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  AuthorListing listing;
  listing.listed_at = row.integer(0);
  const std::string ids = row.text(1);
  for (size_t start = 0; start < ids.size();) {
    const size_t end = std::min(ids.find('\n', start), ids.size());
    listing.ids.push_back(ids.substr(start, end - start));
    start = end + 1;
  }
  return listing;
}

Status Index::put_author(const std::string& source, RepoType type, const std::string& author,
                         const AuthorListing& listing) {
  std::string ids;
  for (const std::string& id : listing.ids)
    if (!id.empty() && id.find('\n') == std::string::npos) ids += id + '\n';
  const RowId source_id = CAKE_TRY(get_source(source));
  MutexLock lock(connections_->write_mutex);
  Statement statement = connections_->writer->prepare(
      "INSERT OR REPLACE INTO author (source, type, name, listed_at, ids)"
      " VALUES (?1, ?2, ?3, ?4, ?5)");
  return statement.bind(source_id, type, author, listing.listed_at, ids).run();
}

Result<RowId> Index::get_view(const ViewRow& view) {
  {
    MutexLock lock(connections_->read_mutex);
    const std::optional<RowId> found =
        CAKE_TRY(find_id(*connections_->reader, kFindView, view.layout, view.source, view.repo.type,
                         view.repo.id, view.typed, view.commit));
    if (found) return *found;
  }
  MutexLock lock(connections_->write_mutex);
  return find_or_insert(*connections_->writer, kFindView, kAddView, view.layout, view.source,
                        view.repo.type, view.repo.id, view.typed, view.commit);
}

Result<std::optional<ViewRow>> Index::find_view(RowId id) {
  MutexLock lock(connections_->read_mutex);
  Statement row = connections_->reader->prepare(
      "SELECT layout, source, type, repo, typed, commit_id FROM view WHERE id = ?1");
  row.bind(id);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  ViewRow view;
  view.id = id;
  view.layout = row.text(0);
  view.source = row.text(1);
  view.repo = {static_cast<RepoType>(row.number(2)), row.text(3)};
  view.typed = row.text(4);
  view.commit = row.text(5);
  return view;
}

}  // namespace cake
