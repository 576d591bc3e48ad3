// Snapshots, and the contents that their entries name.
#include <algorithm>
#include <utility>

#include "store/chunk_store.h"
#include "store/index_connections.h"
#include "store/index_rows.h"

namespace cake {

namespace {

// --- Contents of entries ---

struct SnapshotPlace {
  RowId source = 0;
  std::string source_name;
  RowId repo = 0;
  RepoName repo_name;
  std::string commit;
  int64_t date = 0;
};

struct FoundContent {
  RowId id = 0;
  // Else somebody lies: the hash is that of a file of another length.
  bool same_bytes = false;
};
// A content known by this id, or by another hash of it.
Result<std::optional<FoundContent>> find_by_key(Connection& db, RowId source, const ContentKey& key,
                                                uint64_t bytes) {
  Statement row = db.prepare(
      "SELECT id, bytes FROM content WHERE source = ?1 AND kind = ?2 AND key = ?3"
      " UNION ALL SELECT content.id, content.bytes FROM content_id"
      " JOIN content ON content.id = content_id.content"
      " WHERE content_id.source = ?1 AND content_id.kind = ?2 AND content_id.key = ?3 LIMIT 1");
  row.bind(source, key.kind, key.id);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  return FoundContent{row.number(0), row.number(1) == bytes};
}

Status add_alias(Connection& db, RowId source, ContentKind kind, const std::string& key,
                 RowId content) {
  Statement statement = db.prepare(
      "INSERT INTO content_id (source, kind, key, content) VALUES (?1, ?2, ?3, ?4)"
      " ON CONFLICT DO NOTHING");
  return statement.bind(source, kind, key, content).run();
}

Status remember_place(Connection& db, const SnapshotPlace& place, const TreeEntry& entry,
                      RowId content) {
  Statement statement = db.prepare(
      "UPDATE content SET repo = ?2, commit_id = ?3, path = ?4,"
      " git_oid = CASE git_oid WHEN '' THEN ?5 ELSE git_oid END,"
      " sha256 = CASE sha256 WHEN '' THEN ?6 ELSE sha256 END,"
      " xet = CASE xet WHEN '' THEN ?7 ELSE xet END WHERE id = ?1");
  return statement
      .bind(content, place.repo, place.commit, entry.path, entry.ids.git_oid, entry.ids.sha256,
            entry.ids.xet)
      .run();
}

Result<RowId> insert_content(Connection& db, const SnapshotPlace& place, const TreeEntry& entry,
                             const ContentKey& key) {
  Digest name;
  CAKE_CHECK(parse_hex(content_pack_name(place.source_name, key), name.bytes));
  Statement statement = db.prepare(
      "INSERT INTO content (source, kind, key, name, bytes, mtime, git_oid, sha256, xet, repo,"
      " commit_id, path) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)");
  CAKE_TRY(statement
               .bind(place.source, key.kind, key.id, ByteSpan(name.bytes), entry.bytes, place.date,
                     entry.ids.git_oid, entry.ids.sha256, entry.ids.xet, place.repo, place.commit,
                     entry.path)
               .run());
  return static_cast<RowId>(db.last_insert_id());
}

// The content of an entry: found and its place remembered, or made.
Result<RowId> get_content(Connection& db, const SnapshotPlace& place, const TreeEntry& entry) {
  ContentKey key = content_key(place.repo_name, place.commit, entry);
  std::optional<FoundContent> found = CAKE_TRY(find_by_key(db, place.source, key, entry.bytes));
  // Then the entry is known by its place only, and does not get the other's bytes.
  if (found && !found->same_bytes) {
    TreeEntry masked = entry;
    masked.ids = {};
    key = content_key(place.repo_name, place.commit, masked);
    found = CAKE_TRY(find_by_key(db, place.source, key, entry.bytes));
  }
  RowId id = 0;
  if (found) {
    id = found->id;
    CAKE_TRY(remember_place(db, place, entry, id));
  } else {
    id = CAKE_TRY(insert_content(db, place, entry, key));
  }
  // So that the same bytes are found when the hub later gives only the other hash.
  if (key.kind != ContentKind::place) {
    if (key.kind != ContentKind::sha256 && !entry.ids.sha256.empty())
      CAKE_TRY(add_alias(db, place.source, ContentKind::sha256, entry.ids.sha256, id));
    if (key.kind != ContentKind::xet && !entry.ids.xet.empty())
      CAKE_TRY(add_alias(db, place.source, ContentKind::xet, entry.ids.xet, id));
  }
  return id;
}

Result<std::optional<SnapshotPlace>> find_place(Connection& db, RowId repo) {
  Statement row = db.prepare(
      "SELECT source.id, source.name, repo.type, repo.name FROM repo"
      " JOIN source ON source.id = repo.source WHERE repo.id = ?1");
  row.bind(repo);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  SnapshotPlace place;
  place.source = row.number(0);
  place.source_name = row.text(1);
  place.repo = repo;
  place.repo_name = {static_cast<RepoType>(row.number(2)), row.text(3)};
  return place;
}

// --- Rows ---

Buffer encode_ids(const Snapshot& snapshot) {
  Buffer bytes(8 * snapshot.entries().size());
  for (uint32_t i = 0; i < snapshot.entries().size(); i++)
    store_le(&bytes[8 * i], snapshot.content_id(i));
  return bytes;
}

// The entry whose content has that id, in what encode_ids made.
std::optional<size_t> find_id(ByteSpan ids, RowId id) {
  for (size_t i = 0; 8 * i + 8 <= ids.size(); i++)
    if (load_le64(&ids[8 * i]) == id) return i;
  return std::nullopt;
}

Result<std::shared_ptr<const Snapshot>> decode_snapshot(const RepoName& repo,
                                                        const std::string& commit, int64_t date,
                                                        ByteSpan entries, ByteSpan ids) {
  std::vector<TreeEntry> decoded = CAKE_TRY(Snapshot::decode_entries(entries));
  if (ids.size() != 8 * decoded.size())
    return Error{Errc::corrupt, cat("snapshot ", repo.id, "@", commit, " in the index")};
  std::vector<uint64_t> content_ids;
  content_ids.reserve(decoded.size());
  for (size_t i = 0; i < decoded.size(); i++) content_ids.push_back(load_le64(&ids[8 * i]));
  return std::make_shared<const Snapshot>(repo, commit, date, std::move(decoded),
                                          std::move(content_ids));
}

uint64_t sum_of_bytes(const std::vector<TreeEntry>& entries) {
  uint64_t sum = 0;
  for (const TreeEntry& entry : entries) sum = checked_add(sum, entry.bytes).value_or(UINT64_MAX);
  return sum;
}

Result<std::shared_ptr<const Snapshot>> select_snapshot(Connection& db, const RepoName& repo,
                                                        RowId repo_id, const std::string& commit) {
  Statement row = db.prepare(
      "SELECT date, entries, contents, bytes FROM snapshot WHERE repo = ?1 AND commit_id = ?2");
  row.bind(repo_id, commit);
  if (!CAKE_TRY(row.step())) return std::shared_ptr<const Snapshot>();
  auto snapshot = CAKE_TRY(decode_snapshot(repo, commit, row.integer(0), row.blob(1), row.blob(2)));
  // A wrong length would be a file cut short, and nobody would notice.
  if (sum_of_bytes(snapshot->entries()) != row.number(3))
    return Error{Errc::corrupt, cat("snapshot ", repo.id, "@", commit,
                                    " in the index: its lengths do not add up")};
  return snapshot;
}

Status insert_snapshot(Connection& db, RowId repo, const Snapshot& snapshot) {
  const Buffer entries = Snapshot::encode_entries(snapshot.entries());
  const Buffer ids = encode_ids(snapshot);
  Statement statement = db.prepare(
      "INSERT INTO snapshot (repo, commit_id, date, files, bytes, entries, contents)"
      " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
  return statement
      .bind(repo, snapshot.commit(), snapshot.date(), snapshot.entries().size(),
            sum_of_bytes(snapshot.entries()), ByteSpan(entries), ByteSpan(ids))
      .run();
}

}  // namespace

Result<std::shared_ptr<const Snapshot>> Index::put_snapshot(RowId repo, const std::string& commit,
                                                            int64_t date,
                                                            std::vector<TreeEntry> entries) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  std::optional<SnapshotPlace> place = CAKE_TRY(find_place(db, repo));
  if (!place) return Error{Errc::invalid, cat("index: no repo has row ", repo)};
  place->commit = commit;
  place->date = date;

  // A commit is immutable and directory inodes are ordinals in it: the first listing stays.
  std::shared_ptr<const Snapshot> snapshot =
      CAKE_TRY(select_snapshot(db, place->repo_name, repo, commit));
  if (snapshot != nullptr) {
    for (uint32_t i = 0; i < snapshot->entries().size(); i++)
      CAKE_TRY(remember_place(db, *place, snapshot->entries()[i], snapshot->content_id(i)));
  } else {
    // First without ids, for the list that a snapshot makes of hostile entries.
    std::vector<uint64_t> no_ids(entries.size());
    const Snapshot cleaned(place->repo_name, commit, date, std::move(entries), std::move(no_ids));
    std::vector<uint64_t> ids;
    ids.reserve(cleaned.entries().size());
    for (const TreeEntry& entry : cleaned.entries())
      ids.push_back(CAKE_TRY(get_content(db, *place, entry)));
    const auto made = std::make_shared<Snapshot>(place->repo_name, commit, date, cleaned.entries(),
                                                 std::move(ids));
    made->add_dropped(cleaned.dropped());
    CAKE_TRY(insert_snapshot(db, repo, *made));
    snapshot = made;
  }
  CAKE_TRY(transaction.commit());
  return snapshot;
}

Result<std::shared_ptr<const Snapshot>> Index::find_snapshot(RowId repo,
                                                             const std::string& commit) {
  MutexLock lock(connections_->read_mutex);
  const std::optional<SnapshotPlace> place = CAKE_TRY(find_place(*connections_->reader, repo));
  if (!place) return std::shared_ptr<const Snapshot>();
  return select_snapshot(*connections_->reader, place->repo_name, repo, commit);
}

// Readers wait while these are looked through.
constexpr uint64_t kMaxSnapshotsSearched = 1'000;

Result<std::vector<ContentPlace>> Index::list_places(RowId content, size_t limit) {
  std::vector<std::pair<RowId, RepoName>> snapshots;
  {
    MutexLock lock(connections_->read_mutex);
    Statement rows = connections_->reader->prepare(
        "SELECT snapshot.id, repo.type, repo.name FROM content"
        " JOIN repo ON repo.source = content.source JOIN snapshot ON snapshot.repo = repo.id"
        " WHERE content.id = ?1 ORDER BY snapshot.id DESC LIMIT ?2");
    rows.bind(content, kMaxSnapshotsSearched);
    while (CAKE_TRY(rows.step()))
      snapshots.push_back({rows.number(0), {static_cast<RepoType>(rows.number(1)), rows.text(2)}});
  }
  std::vector<ContentPlace> places;
  for (const auto& [id, repo] : snapshots) {
    if (places.size() == limit) break;
    // A repo that refuses one commit refuses the others.
    const auto is_of_repo = [&of = repo](const ContentPlace& place) { return place.repo == of; };
    if (std::any_of(places.begin(), places.end(), is_of_repo)) continue;
    MutexLock lock(connections_->read_mutex);
    Statement row = connections_->reader->prepare(
        "SELECT commit_id, contents, entries FROM snapshot WHERE id = ?1");
    row.bind(id);
    if (!CAKE_TRY(row.step())) continue;  // removed meanwhile
    const std::optional<size_t> entry = find_id(row.blob(1), content);
    if (!entry) continue;
    std::vector<TreeEntry> entries = CAKE_TRY(Snapshot::decode_entries(row.blob(2)));
    if (*entry >= entries.size())
      return Error{Errc::corrupt, cat("snapshot ", repo.id, "@", row.text(0), " in the index")};
    places.push_back({repo, row.text(0), std::move(entries[*entry].path)});
  }
  return places;
}

Result<std::vector<SnapshotRow>> Index::list_snapshots(RowId repo) {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT commit_id, date, files, bytes FROM snapshot WHERE repo = ?1 ORDER BY date, id");
  rows.bind(repo);
  std::vector<SnapshotRow> snapshots;
  while (CAKE_TRY(rows.step()))
    snapshots.push_back({rows.text(0), rows.integer(1), rows.number(2), rows.number(3)});
  return snapshots;
}

}  // namespace cake
