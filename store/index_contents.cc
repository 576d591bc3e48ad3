// Contents: what is known of a file's bytes, whatever its names.
#include "store/index_connections.h"
#include "store/index_rows.h"

namespace cake {

Result<std::optional<ContentRow>> Index::find_content(RowId id) {
  MutexLock lock(connections_->read_mutex);
  Statement row = connections_->reader->prepare(
      "SELECT content.kind, content.key, content.bytes, content.mtime, content.git_oid,"
      " content.sha256, content.xet, source.name, repo.type, repo.name, content.commit_id,"
      " content.path, content.verified, content.last_access FROM content"
      " JOIN source ON source.id = content.source JOIN repo ON repo.id = content.repo"
      " WHERE content.id = ?1");
  row.bind(id);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  ContentRow content;
  content.id = id;
  content.key = {static_cast<ContentKind>(row.number(0)), row.text(1)};
  content.bytes = row.number(2);
  content.mtime = row.integer(3);
  content.ids = {row.text(4), row.text(5), row.text(6)};
  content.source = row.text(7);
  content.repo = {static_cast<RepoType>(row.number(8)), row.text(9)};
  content.commit = row.text(10);
  content.path = row.text(11);
  const auto verification = static_cast<Verification>(row.number(12));
  content.verified = verification == Verification::verified;
  content.mismatched = verification == Verification::mismatch;
  content.last_access = row.integer(13);
  return content;
}

Result<std::optional<RowId>> Index::find_content_by_name(const Digest& name) {
  MutexLock lock(connections_->read_mutex);
  return find_id(*connections_->reader, "SELECT id FROM content WHERE name = ?1",
                 ByteSpan(name.bytes));
}

Status Index::set_verification(RowId content, Verification verification) {
  MutexLock lock(connections_->write_mutex);
  Statement statement =
      connections_->writer->prepare("UPDATE content SET verified = ?2 WHERE id = ?1");
  return statement.bind(content, verification).run();
}

namespace {

Result<std::vector<RowId>> row_ids(Statement& rows) {
  std::vector<RowId> ids;
  while (CAKE_TRY(rows.step())) ids.push_back(rows.number(0));
  return ids;
}

}  // namespace

Result<std::vector<RowId>> Index::list_unverified(RowId after, size_t limit) {
  MutexLock lock(connections_->read_mutex);
  // From the segments, of which there are few, to the contents.
  Statement rows = connections_->reader->prepare(
      "SELECT content.id FROM (SELECT content, sum(known_bytes) AS bytes FROM recipe_segment"
      " WHERE content > ?3 GROUP BY content) AS known JOIN content ON content.id = known.content"
      " WHERE content.verified = 0 AND known.bytes = content.bytes"
      " AND (content.sha256 <> '' OR content.kind = ?2)"
      " ORDER BY content.id LIMIT ?1");
  rows.bind(limit, ContentKind::git_blob, after);
  return row_ids(rows);
}

Result<std::vector<RowId>> Index::list_known_contents() {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT DISTINCT content FROM recipe_segment WHERE known > 0 ORDER BY content");
  rows.bind();
  return row_ids(rows);
}

Result<std::vector<RowId>> Index::find_twins(const ContentRow& content) {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT id FROM content WHERE source IN (SELECT id FROM source) AND kind = ?1 AND key = ?2"
      " AND id <> ?3 AND bytes = ?4 AND verified = ?5"
      " UNION SELECT content.id FROM content_id JOIN content ON content.id = content_id.content"
      " WHERE content_id.source IN (SELECT id FROM source) AND content_id.kind = ?1"
      " AND content_id.key = ?2 AND content.id <> ?3 AND content.bytes = ?4"
      " AND content.verified = ?5");
  std::vector<RowId> twins;
  const auto add = [&](ContentKind kind, const std::string& key) -> Status {
    if (key.empty()) return {};
    rows.bind(kind, key, content.id, content.bytes, Verification::verified);
    for (const RowId id : CAKE_TRY(row_ids(rows))) twins.push_back(id);
    return {};
  };
  CAKE_TRY(add(ContentKind::sha256, content.ids.sha256));
  if (content.key.kind == ContentKind::git_blob)
    CAKE_TRY(add(ContentKind::git_blob, content.key.id));
  return twins;
}

}  // namespace cake
