#include "store/index.h"

#include <algorithm>
#include <array>
#include <map>
#include <unordered_map>
#include <utility>

#include "store/base/file.h"
#include "store/base/mutex.h"
#include "store/chunk_store.h"
#include "store/sqlite.h"

namespace cake {

namespace {

constexpr uint64_t kSegmentDigests = 1024;
// 2^40 extents are an exabyte; more is a bug or a lie.
constexpr uint64_t kMaxOrdinal = uint64_t{1} << 40;
// What the cutters of format.h produce; a newer number is another program's.
constexpr int kCutterVersion = 1;

// --- Schema ---
//
// A migration takes the schema from version N (its place in the list) to N + 1.  What is released
// is never edited: a change is a new function at the end.  man/cakefs-store.5 describes the result.

Status migrate_0_to_1(Connection& db) {
  return db.execute(R"sql(
    CREATE TABLE source (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL UNIQUE);
    CREATE TABLE repo (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      source INTEGER NOT NULL, type INTEGER NOT NULL, name TEXT NOT NULL,
      UNIQUE (source, type, name));
    CREATE TABLE ref (
      repo INTEGER NOT NULL, revision TEXT NOT NULL,
      commit_id TEXT NOT NULL, resolved_at INTEGER NOT NULL,
      PRIMARY KEY (repo, revision)) WITHOUT ROWID;
    CREATE TABLE snapshot (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      repo INTEGER NOT NULL, commit_id TEXT NOT NULL,
      date INTEGER NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL,
      entries BLOB NOT NULL, contents BLOB NOT NULL,
      UNIQUE (repo, commit_id));
    CREATE TABLE author (
      source INTEGER NOT NULL, type INTEGER NOT NULL, name TEXT NOT NULL,
      listed_at INTEGER NOT NULL, ids TEXT NOT NULL,
      PRIMARY KEY (source, type, name)) WITHOUT ROWID;
    CREATE TABLE view (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      layout TEXT NOT NULL, source TEXT NOT NULL, type INTEGER NOT NULL, repo TEXT NOT NULL,
      typed TEXT NOT NULL, commit_id TEXT NOT NULL,
      UNIQUE (layout, source, type, repo, typed, commit_id));
    CREATE TABLE content (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      source INTEGER NOT NULL, kind INTEGER NOT NULL, key TEXT NOT NULL, name BLOB NOT NULL,
      bytes INTEGER NOT NULL, mtime INTEGER NOT NULL,
      git_oid TEXT NOT NULL, sha256 TEXT NOT NULL, xet TEXT NOT NULL,
      repo INTEGER NOT NULL, commit_id TEXT NOT NULL, path TEXT NOT NULL,
      verified INTEGER NOT NULL DEFAULT 0, error TEXT, last_access INTEGER NOT NULL DEFAULT 0,
      UNIQUE (source, kind, key));
    CREATE UNIQUE INDEX content_by_name ON content (name);
    CREATE TABLE content_id (
      source INTEGER NOT NULL, kind INTEGER NOT NULL, key TEXT NOT NULL,
      content INTEGER NOT NULL,
      PRIMARY KEY (source, kind, key)) WITHOUT ROWID;
    CREATE TABLE recipe (
      content INTEGER PRIMARY KEY,
      cutter INTEGER NOT NULL, version INTEGER NOT NULL, head BLOB NOT NULL);
    CREATE TABLE recipe_segment (
      content INTEGER NOT NULL, segment INTEGER NOT NULL,
      known INTEGER NOT NULL, known_bytes INTEGER NOT NULL, digests BLOB NOT NULL,
      PRIMARY KEY (content, segment)) WITHOUT ROWID;
    CREATE TABLE chunk (
      digest BLOB PRIMARY KEY,
      pack INTEGER NOT NULL, offset INTEGER NOT NULL,
      encoded_bytes INTEGER NOT NULL, plain_bytes INTEGER NOT NULL,
      codec INTEGER NOT NULL, checksum INTEGER NOT NULL,
      base BLOB, last_access INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE pack (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL UNIQUE, kind INTEGER NOT NULL DEFAULT 0,
      committed_bytes INTEGER NOT NULL DEFAULT 0, sealed INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE pin (
      repo INTEGER NOT NULL, revision TEXT NOT NULL, pinned_at INTEGER NOT NULL,
      PRIMARY KEY (repo, revision)) WITHOUT ROWID;
  )sql");
}

// What eviction looks at (store/evict_policy.h).
Status migrate_1_to_2(Connection& db) {
  return db.execute(R"sql(
    ALTER TABLE chunk ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE ghost (
      key INTEGER PRIMARY KEY, evicted_at INTEGER NOT NULL, proven INTEGER NOT NULL);
  )sql");
}

using Migration = Status (*)(Connection&);
constexpr std::array<Migration, 2> kMigrations = {migrate_0_to_1, migrate_1_to_2};

Result<uint64_t> schema_version(Connection& db) {
  Statement statement = db.prepare("SELECT value FROM meta WHERE key = 'schema_version'");
  return CAKE_TRY(statement.step()) ? statement.number(0) : 0;
}

// The caller holds the opening lock, so nobody else migrates meanwhile.
Status migrate(Connection& db, const std::string& path) {
  CAKE_TRY(
      db.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value NOT NULL)"
                 " WITHOUT ROWID"));
  const uint64_t found = CAKE_TRY(schema_version(db));
  if (found > kMigrations.size())
    return Error{Errc::unsupported,
                 cat("index ", path, " has schema version ", found, ", this program knows ",
                     kMigrations.size(), ": use the newer program or another store")};
  for (uint64_t version = found; version < kMigrations.size(); version++) {
    Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
    CAKE_TRY(kMigrations[version](db));
    Statement statement =
        db.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES ('schema_version', ?1)");
    CAKE_TRY(statement.bind(version + 1).run());
    CAKE_TRY(transaction.commit());
  }
  return {};
}

// --- Rows ---

Buffer encode_ids(const Snapshot& snapshot) {
  Buffer bytes(8 * snapshot.entries().size());
  for (uint32_t i = 0; i < snapshot.entries().size(); i++)
    store_le(&bytes[8 * i], snapshot.content_id(i));
  return bytes;
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

Location read_location(const Statement& row, int column) {
  Location location;
  location.pack = static_cast<uint32_t>(row.number(column));
  location.offset = row.number(column + 1);
  location.encoded_bytes = static_cast<uint32_t>(row.number(column + 2));
  location.plain_bytes = static_cast<uint32_t>(row.number(column + 3));
  location.codec = static_cast<CodecId>(row.number(column + 4));
  location.checksum = row.number(column + 5);
  return location;
}

Digest digest_at(ByteSpan digests, uint64_t slot) {
  Digest digest;
  std::memcpy(digest.bytes.data(), &digests[slot * kDigestBytes], kDigestBytes);
  return digest;
}

// The id of a row that is found by its values, or made: `select` and `insert` take the same ones.
// A missed insert may use up an id, which is fine: ids are not counted, only never reused.
template <typename... Values>
Result<std::optional<RowId>> find_id(Connection& db, std::string_view select,
                                     const Values&... values) {
  Statement statement = db.prepare(select);
  statement.bind(values...);
  if (!CAKE_TRY(statement.step())) return std::nullopt;
  return statement.number(0);
}

template <typename... Values>
Result<RowId> find_or_insert(Connection& db, std::string_view select, std::string_view insert,
                             const Values&... values) {
  Statement statement = db.prepare(insert);
  CAKE_TRY(statement.bind(values...).run());
  if (db.changes() == 1) return static_cast<RowId>(db.last_insert_id());
  const std::optional<RowId> found = CAKE_TRY(find_id(db, select, values...));
  if (!found) return Error{Errc::corrupt, "index: a row is neither there nor insertable"};
  return *found;
}

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
constexpr std::string_view kLocationColumns =
    "pack, offset, encoded_bytes, plain_bytes, codec, checksum";

}  // namespace

struct Index::Impl {
  Impl(std::unique_ptr<Connection> read_connection, std::unique_ptr<Connection> write_connection)
      : reader(std::move(read_connection)), writer(std::move(write_connection)) {}

  // Two connections, so that no reader waits for a writer's transaction.  Leaf locks; never both.
  Mutex read_mutex;
  const std::unique_ptr<Connection> reader PT_GUARDED_BY(read_mutex);
  Mutex write_mutex;
  const std::unique_ptr<Connection> writer PT_GUARDED_BY(write_mutex);
};

Index::Index(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Index::~Index() = default;

Result<std::unique_ptr<Index>> Index::open(const std::string& path) {
  // Turning WAL on and migrating are not covered by SQLite's busy timeout: one opener at a time.
  // The lock file stays; its holder never lasts longer than this function.
  const File lock = CAKE_TRY(File::open(path + ".lock", File::Mode::create));
  CAKE_TRY(lock.lock({}, true));
  std::unique_ptr<Connection> writer =
      CAKE_TRY(Connection::open(path, Connection::Mode::read_write));
  CAKE_TRY(migrate(*writer, path));
  std::unique_ptr<Connection> reader =
      CAKE_TRY(Connection::open(path, Connection::Mode::read_only));
  auto impl = std::make_unique<Impl>(std::move(reader), std::move(writer));
  return std::unique_ptr<Index>(new Index(std::move(impl)));
}

// --- Names ---

Result<RowId> Index::get_source(const std::string& source) {
  {
    MutexLock lock(impl_->read_mutex);
    const std::optional<RowId> found = CAKE_TRY(find_id(*impl_->reader, kFindSource, source));
    if (found) return *found;
  }
  MutexLock lock(impl_->write_mutex);
  return find_or_insert(*impl_->writer, kFindSource, kAddSource, source);
}

Result<RowId> Index::get_repo(const std::string& source, const RepoName& name) {
  const std::optional<RepoRow> known = CAKE_TRY(find_repo(source, name));
  if (known) return known->id;
  const RowId source_id = CAKE_TRY(get_source(source));
  MutexLock lock(impl_->write_mutex);
  return find_or_insert(*impl_->writer, kFindRepo, kAddRepo, source_id, name.type, name.id);
}

Result<std::optional<RepoRow>> Index::find_repo(const std::string& source, const RepoName& name) {
  MutexLock lock(impl_->read_mutex);
  const std::optional<RowId> source_id = CAKE_TRY(find_id(*impl_->reader, kFindSource, source));
  if (!source_id) return std::nullopt;
  const std::optional<RowId> id =
      CAKE_TRY(find_id(*impl_->reader, kFindRepo, *source_id, name.type, name.id));
  if (!id) return std::nullopt;
  return RepoRow{*id, name};
}

Result<std::vector<RepoRow>> Index::list_repos(const std::string& source) {
  MutexLock lock(impl_->read_mutex);
  Statement rows = impl_->reader->prepare(
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
  MutexLock lock(impl_->read_mutex);
  Statement rows = impl_->reader->prepare("SELECT name FROM source ORDER BY id");
  rows.bind();
  std::vector<std::string> sources;
  while (CAKE_TRY(rows.step())) sources.push_back(rows.text(0));
  return sources;
}

Result<std::optional<RefRow>> Index::find_ref(RowId repo, const std::string& revision) {
  MutexLock lock(impl_->read_mutex);
  Statement row = impl_->reader->prepare(
      "SELECT commit_id, resolved_at FROM ref WHERE repo = ?1 AND revision = ?2");
  row.bind(repo, revision);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  return RefRow{revision, row.text(0), row.integer(1)};
}

Result<std::vector<RefRow>> Index::list_refs(RowId repo) {
  MutexLock lock(impl_->read_mutex);
  Statement rows = impl_->reader->prepare(
      "SELECT revision, commit_id, resolved_at FROM ref WHERE repo = ?1 ORDER BY revision");
  rows.bind(repo);
  std::vector<RefRow> refs;
  while (CAKE_TRY(rows.step())) refs.push_back({rows.text(0), rows.text(1), rows.integer(2)});
  return refs;
}

Status Index::put_ref(RowId repo, const RefRow& ref) {
  MutexLock lock(impl_->write_mutex);
  Statement statement = impl_->writer->prepare(
      "INSERT OR REPLACE INTO ref (repo, revision, commit_id, resolved_at)"
      " VALUES (?1, ?2, ?3, ?4)");
  return statement.bind(repo, ref.revision, ref.commit, ref.resolved_at).run();
}

Status Index::put_pin(RowId repo, const std::string& revision, int64_t pinned_at) {
  MutexLock lock(impl_->write_mutex);
  Statement statement = impl_->writer->prepare(
      "INSERT INTO pin (repo, revision, pinned_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING");
  return statement.bind(repo, revision, pinned_at).run();
}

// --- Snapshots ---

namespace {

struct Place {
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

Status remember_place(Connection& db, const Place& place, const TreeEntry& entry, RowId content) {
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

Result<RowId> insert_content(Connection& db, const Place& place, const TreeEntry& entry,
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
Result<RowId> get_content(Connection& db, const Place& place, const TreeEntry& entry) {
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

Result<std::optional<Place>> find_place(Connection& db, RowId repo) {
  Statement row = db.prepare(
      "SELECT source.id, source.name, repo.type, repo.name FROM repo"
      " JOIN source ON source.id = repo.source WHERE repo.id = ?1");
  row.bind(repo);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  Place place;
  place.source = row.number(0);
  place.source_name = row.text(1);
  place.repo = repo;
  place.repo_name = {static_cast<RepoType>(row.number(2)), row.text(3)};
  return place;
}

Result<std::shared_ptr<const Snapshot>> select_snapshot(Connection& db, const RepoName& repo,
                                                        RowId repo_id, const std::string& commit) {
  Statement row =
      db.prepare("SELECT date, entries, contents FROM snapshot WHERE repo = ?1 AND commit_id = ?2");
  row.bind(repo_id, commit);
  if (!CAKE_TRY(row.step())) return std::shared_ptr<const Snapshot>();
  return decode_snapshot(repo, commit, row.integer(0), row.blob(1), row.blob(2));
}

Status insert_snapshot(Connection& db, RowId repo, const Snapshot& snapshot) {
  uint64_t bytes = 0;
  for (const TreeEntry& entry : snapshot.entries())
    bytes = checked_add(bytes, entry.bytes).value_or(UINT64_MAX);
  const Buffer entries = Snapshot::encode_entries(snapshot.entries());
  const Buffer ids = encode_ids(snapshot);
  Statement statement = db.prepare(
      "INSERT INTO snapshot (repo, commit_id, date, files, bytes, entries, contents)"
      " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
  return statement
      .bind(repo, snapshot.commit(), snapshot.date(), snapshot.entries().size(), bytes,
            ByteSpan(entries), ByteSpan(ids))
      .run();
}

}  // namespace

Result<std::shared_ptr<const Snapshot>> Index::put_snapshot(RowId repo, const std::string& commit,
                                                            int64_t date,
                                                            std::vector<TreeEntry> entries) {
  MutexLock lock(impl_->write_mutex);
  Connection& db = *impl_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  std::optional<Place> place = CAKE_TRY(find_place(db, repo));
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
    snapshot = std::make_shared<const Snapshot>(place->repo_name, commit, date, cleaned.entries(),
                                                std::move(ids));
    CAKE_TRY(insert_snapshot(db, repo, *snapshot));
  }
  CAKE_TRY(transaction.commit());
  return snapshot;
}

Result<std::shared_ptr<const Snapshot>> Index::find_snapshot(RowId repo,
                                                             const std::string& commit) {
  MutexLock lock(impl_->read_mutex);
  const std::optional<Place> place = CAKE_TRY(find_place(*impl_->reader, repo));
  if (!place) return std::shared_ptr<const Snapshot>();
  return select_snapshot(*impl_->reader, place->repo_name, repo, commit);
}

Result<std::vector<SnapshotRow>> Index::list_snapshots(RowId repo) {
  MutexLock lock(impl_->read_mutex);
  Statement rows = impl_->reader->prepare(
      "SELECT commit_id, date, files, bytes FROM snapshot WHERE repo = ?1 ORDER BY date, id");
  rows.bind(repo);
  std::vector<SnapshotRow> snapshots;
  while (CAKE_TRY(rows.step()))
    snapshots.push_back({rows.text(0), rows.integer(1), rows.number(2), rows.number(3)});
  return snapshots;
}

Result<std::optional<Index::AuthorListing>> Index::find_author(const std::string& source,
                                                               RepoType type,
                                                               const std::string& author) {
  MutexLock lock(impl_->read_mutex);
  Statement row = impl_->reader->prepare(
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
  MutexLock lock(impl_->write_mutex);
  Statement statement = impl_->writer->prepare(
      "INSERT OR REPLACE INTO author (source, type, name, listed_at, ids)"
      " VALUES (?1, ?2, ?3, ?4, ?5)");
  return statement.bind(source_id, type, author, listing.listed_at, ids).run();
}

Result<RowId> Index::get_view(const ViewRow& view) {
  {
    MutexLock lock(impl_->read_mutex);
    const std::optional<RowId> found =
        CAKE_TRY(find_id(*impl_->reader, kFindView, view.layout, view.source, view.repo.type,
                         view.repo.id, view.typed, view.commit));
    if (found) return *found;
  }
  MutexLock lock(impl_->write_mutex);
  return find_or_insert(*impl_->writer, kFindView, kAddView, view.layout, view.source,
                        view.repo.type, view.repo.id, view.typed, view.commit);
}

Result<std::optional<ViewRow>> Index::find_view(RowId id) {
  MutexLock lock(impl_->read_mutex);
  Statement row = impl_->reader->prepare(
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

// --- Contents and recipes ---

Result<std::optional<ContentRow>> Index::find_content(RowId id) {
  MutexLock lock(impl_->read_mutex);
  Statement row = impl_->reader->prepare(
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
  MutexLock lock(impl_->read_mutex);
  return find_id(*impl_->reader, "SELECT id FROM content WHERE name = ?1", ByteSpan(name.bytes));
}

Status Index::set_verification(RowId content, Verification verification) {
  MutexLock lock(impl_->write_mutex);
  Statement statement = impl_->writer->prepare("UPDATE content SET verified = ?2 WHERE id = ?1");
  return statement.bind(content, verification).run();
}

namespace {

Result<std::vector<RowId>> row_ids(Statement& rows) {
  std::vector<RowId> ids;
  while (CAKE_TRY(rows.step())) ids.push_back(rows.number(0));
  return ids;
}

}  // namespace

Result<std::vector<RowId>> Index::list_unverified(size_t limit) {
  MutexLock lock(impl_->read_mutex);
  // From the segments, of which there are few, to the contents.
  Statement rows = impl_->reader->prepare(
      "SELECT content.id FROM (SELECT content, sum(known_bytes) AS bytes FROM recipe_segment"
      " GROUP BY content) AS known JOIN content ON content.id = known.content"
      " WHERE content.verified = 0 AND known.bytes = content.bytes"
      " AND (content.sha256 <> '' OR content.kind = ?2) LIMIT ?1");
  rows.bind(limit, ContentKind::git_blob);
  return row_ids(rows);
}

Result<std::vector<RowId>> Index::list_known_contents() {
  MutexLock lock(impl_->read_mutex);
  Statement rows = impl_->reader->prepare(
      "SELECT DISTINCT content FROM recipe_segment WHERE known > 0 ORDER BY content");
  rows.bind();
  return row_ids(rows);
}

Result<std::vector<RowId>> Index::find_twins(const ContentRow& content) {
  MutexLock lock(impl_->read_mutex);
  Statement rows = impl_->reader->prepare(
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

Status Index::touch_contents(std::span<const RowId> contents, int64_t now) {
  MutexLock lock(impl_->write_mutex);
  Transaction transaction = CAKE_TRY(Transaction::begin(*impl_->writer, Transaction::Kind::write));
  Statement statement =
      impl_->writer->prepare("UPDATE content SET last_access = max(last_access, ?2) WHERE id = ?1");
  for (const RowId id : contents) CAKE_TRY(statement.bind(id, now).run());
  return transaction.commit();
}

Result<std::optional<RecipeRow>> Index::find_recipe(RowId content) {
  MutexLock lock(impl_->read_mutex);
  Statement row =
      impl_->reader->prepare("SELECT cutter, version, head FROM recipe WHERE content = ?1");
  row.bind(content);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  if (row.integer(1) != kCutterVersion)
    return Error{Errc::unsupported,
                 cat("index: content ", content, " was cut by version ", row.integer(1))};
  return RecipeRow{static_cast<Cutter>(row.number(0)), to_buffer(row.blob(2))};
}

Status Index::put_recipe(RowId content, const RecipeRow& recipe) {
  MutexLock lock(impl_->write_mutex);
  Statement statement = impl_->writer->prepare(
      "INSERT INTO recipe (content, cutter, version, head) VALUES (?1, ?2, ?3, ?4)"
      " ON CONFLICT DO NOTHING");
  return statement.bind(content, recipe.cutter, kCutterVersion, ByteSpan(recipe.head)).run();
}

Result<std::vector<Digest>> Index::find_digests(RowId content, uint64_t first, uint64_t count) {
  const std::optional<uint64_t> end = checked_add(first, count);
  if (!end || *end > kMaxOrdinal) return Error{Errc::invalid, "index: extent ordinal too large"};
  std::vector<Digest> digests(count);
  if (count == 0) return digests;
  MutexLock lock(impl_->read_mutex);
  Statement rows = impl_->reader->prepare(
      "SELECT segment, digests FROM recipe_segment"
      " WHERE content = ?1 AND segment BETWEEN ?2 AND ?3");
  rows.bind(content, first / kSegmentDigests, (*end - 1) / kSegmentDigests);
  while (CAKE_TRY(rows.step())) {
    const uint64_t start = rows.number(0) * kSegmentDigests;
    const ByteSpan blob = rows.blob(1);
    const uint64_t slots = std::min(blob.size() / kDigestBytes, kSegmentDigests);
    for (uint64_t slot = first > start ? first - start : 0; slot < slots && start + slot < *end;
         slot++)
      digests[start + slot - first] = digest_at(blob, slot);
  }
  return digests;
}

namespace {

// One row of recipe_segment, read, changed and written back within a write transaction.
struct Segment {
  RowId content = 0;
  uint64_t number = 0;
  uint64_t known = 0;
  uint64_t known_bytes = 0;
  Buffer digests;

  static Result<Segment> load(Connection& db, RowId content, uint64_t number) {
    Segment segment{content, number, 0, 0, {}};
    Statement row = db.prepare(
        "SELECT known, known_bytes, digests FROM recipe_segment"
        " WHERE content = ?1 AND segment = ?2");
    row.bind(content, number);
    if (CAKE_TRY(row.step())) {
      segment.known = row.number(0);
      segment.known_bytes = row.number(1);
      segment.digests = to_buffer(row.blob(2));
      if (segment.digests.size() > kSegmentDigests * kDigestBytes)
        return Error{Errc::corrupt, cat("index: recipe of content ", content)};
    }
    return segment;
  }

  void set(uint64_t slot, const Digest& digest, uint64_t plain_bytes) {
    if (digests.size() < (slot + 1) * kDigestBytes) digests.resize((slot + 1) * kDigestBytes);
    if (digest_at(digests, slot).is_zero()) {
      known++;
      known_bytes += plain_bytes;
    }
    std::memcpy(&digests[slot * kDigestBytes], digest.bytes.data(), kDigestBytes);
  }

  void clear(uint64_t slot, uint64_t plain_bytes) {
    if (digests.size() < (slot + 1) * kDigestBytes || digest_at(digests, slot).is_zero()) return;
    known -= std::min<uint64_t>(known, 1);
    known_bytes -= std::min(known_bytes, plain_bytes);
    std::memset(&digests[slot * kDigestBytes], 0, kDigestBytes);
  }

  Status save(Connection& db) const {
    Statement statement = db.prepare(
        "INSERT OR REPLACE INTO recipe_segment (content, segment, known, known_bytes, digests)"
        " VALUES (?1, ?2, ?3, ?4, ?5)");
    return statement.bind(content, number, known, known_bytes, ByteSpan(digests)).run();
  }
};

Status insert_chunks(Connection& db, std::span<const PublishedExtent> extents, uint32_t pack) {
  std::vector<const PublishedExtent*> fresh;
  for (const PublishedExtent& extent : extents)
    if (extent.location && !extent.replaces) fresh.push_back(&extent);
  // In key order, so that neighbouring rows go to the same page while it is at hand.
  std::sort(fresh.begin(), fresh.end(),
            [](const auto* a, const auto* b) { return a->digest < b->digest; });
  const int64_t now = unix_now();
  // A chunk that comes back soon after it was evicted is no stranger.
  Statement statement = db.prepare(
      "INSERT INTO chunk (digest, pack, offset, encoded_bytes, plain_bytes, codec, checksum, base,"
      " last_access, uses) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8,"
      " EXISTS (SELECT 1 FROM ghost WHERE key = ?9)) ON CONFLICT DO NOTHING");
  for (const PublishedExtent* extent : fresh) {
    const Location& at = *extent->location;
    CAKE_CHECK(at.pack == pack);
    CAKE_TRY(statement
                 .bind(ByteSpan(extent->digest.bytes), at.pack, at.offset, at.encoded_bytes,
                       at.plain_bytes, at.codec, at.checksum, now,
                       static_cast<int64_t>(load_le64(extent->digest.bytes.data())))
                 .run());
  }
  return {};
}

Status replace_chunks(Connection& db, std::span<const PublishedExtent> extents, uint32_t pack) {
  for (const PublishedExtent& extent : extents) {
    if (!extent.replaces) continue;
    const Location& at = *extent.location;
    CAKE_CHECK(at.pack == pack);
    Statement statement = db.prepare(
        "UPDATE chunk SET pack = ?2, offset = ?3, encoded_bytes = ?4, codec = ?5"
        " WHERE digest = ?1 AND pack = ?6 AND offset = ?7");
    CAKE_TRY(statement
                 .bind(ByteSpan(extent.digest.bytes), at.pack, at.offset, at.encoded_bytes,
                       at.codec, extent.replaces->pack, extent.replaces->offset)
                 .run());
  }
  return {};
}

Result<uint64_t> plain_bytes_of(Connection& db, const PublishedExtent& extent) {
  if (extent.location) return extent.location->plain_bytes;
  if (extent.plain_bytes != 0) return extent.plain_bytes;
  Statement row = db.prepare("SELECT plain_bytes FROM chunk WHERE digest = ?1");
  row.bind(ByteSpan(extent.digest.bytes));
  return CAKE_TRY(row.step()) ? row.number(0) : 0;
}

Status merge_digests(Connection& db, std::span<const PublishedExtent> extents) {
  std::map<std::pair<RowId, uint64_t>, std::vector<const PublishedExtent*>> by_segment;
  for (const PublishedExtent& extent : extents) {
    if (extent.content == 0) continue;
    if (extent.ordinal >= kMaxOrdinal)
      return Error{Errc::invalid, "index: extent ordinal too large"};
    by_segment[{extent.content, extent.ordinal / kSegmentDigests}].push_back(&extent);
  }
  for (const auto& [key, members] : by_segment) {
    Segment segment = CAKE_TRY(Segment::load(db, key.first, key.second));
    for (const PublishedExtent* extent : members)
      segment.set(extent->ordinal % kSegmentDigests, extent->digest,
                  CAKE_TRY(plain_bytes_of(db, *extent)));
    CAKE_TRY(segment.save(db));
  }
  return {};
}

// How long an extent is, from the recipe; 0 when the content has none.
Result<Extents> cut_again(Connection& db, RowId content) {
  Statement row = db.prepare(
      "SELECT recipe.cutter, recipe.head, content.bytes FROM recipe"
      " JOIN content ON content.id = recipe.content WHERE recipe.content = ?1");
  row.bind(content);
  if (!CAKE_TRY(row.step())) return Extents::uniform(0);
  return cut_file(static_cast<Cutter>(row.number(0)), row.blob(1), row.number(2)).extents;
}

}  // namespace

Status Index::drop_digests(RowId content, std::span<const uint64_t> ordinals) {
  MutexLock lock(impl_->write_mutex);
  Connection& db = *impl_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  const Extents extents = CAKE_TRY(cut_again(db, content));
  std::map<uint64_t, std::vector<uint64_t>> by_segment;
  for (const uint64_t ordinal : ordinals) by_segment[ordinal / kSegmentDigests].push_back(ordinal);
  for (const auto& [number, members] : by_segment) {
    Segment segment = CAKE_TRY(Segment::load(db, content, number));
    for (const uint64_t ordinal : members)
      segment.clear(ordinal % kSegmentDigests,
                    ordinal < extents.count() ? extents.at(ordinal).length : 0);
    CAKE_TRY(segment.save(db));
  }
  return transaction.commit();
}

Status Index::drop_recipe(RowId content) {
  MutexLock lock(impl_->write_mutex);
  Connection& db = *impl_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  for (const char* sql :
       {"DELETE FROM recipe WHERE content = ?1", "DELETE FROM recipe_segment WHERE content = ?1"}) {
    Statement statement = db.prepare(sql);
    CAKE_TRY(statement.bind(content).run());
  }
  return transaction.commit();
}

// --- Chunks and packs ---

Result<std::vector<std::optional<Location>>> Index::find_chunks(std::span<const Digest> digests) {
  static const std::string kSql = cat("SELECT ", kLocationColumns, " FROM chunk WHERE digest = ?1");
  std::vector<std::optional<Location>> locations;
  locations.reserve(digests.size());
  MutexLock lock(impl_->read_mutex);
  Transaction transaction = CAKE_TRY(Transaction::begin(*impl_->reader, Transaction::Kind::read));
  {
    Statement row = impl_->reader->prepare(kSql);
    for (const Digest& digest : digests) {
      row.bind(ByteSpan(digest.bytes));
      locations.push_back(CAKE_TRY(row.step()) ? std::optional(read_location(row, 0))
                                               : std::nullopt);
    }
  }
  CAKE_TRY(transaction.commit());
  return locations;
}

Status Index::publish(std::span<const PublishedExtent> extents, uint32_t pack,
                      uint64_t committed_bytes) {
  MutexLock lock(impl_->write_mutex);
  Connection& db = *impl_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  CAKE_TRY(insert_chunks(db, extents, pack));
  CAKE_TRY(replace_chunks(db, extents, pack));
  CAKE_TRY(merge_digests(db, extents));
  Statement statement =
      db.prepare("UPDATE pack SET committed_bytes = max(committed_bytes, ?2) WHERE id = ?1");
  CAKE_TRY(statement.bind(pack, committed_bytes).run());
  return transaction.commit();
}

Status Index::drop_chunk(const Digest& digest, const Location& location) {
  MutexLock lock(impl_->write_mutex);
  Statement statement = impl_->writer->prepare(
      "DELETE FROM chunk WHERE digest = ?1 AND pack = ?2 AND offset = ?3 AND encoded_bytes = ?4"
      " AND plain_bytes = ?5 AND codec = ?6 AND checksum = ?7");
  return statement
      .bind(ByteSpan(digest.bytes), location.pack, location.offset, location.encoded_bytes,
            location.plain_bytes, location.codec, location.checksum)
      .run();
}

Result<uint32_t> Index::add_pack(const std::string& name) {
  MutexLock lock(impl_->write_mutex);
  return static_cast<uint32_t>(
      CAKE_TRY(find_or_insert(*impl_->writer, "SELECT id FROM pack WHERE name = ?1",
                              "INSERT INTO pack (name) VALUES (?1) ON CONFLICT DO NOTHING", name)));
}

Result<std::optional<Index::PackRow>> Index::find_pack(uint32_t id) {
  MutexLock lock(impl_->read_mutex);
  Statement row =
      impl_->reader->prepare("SELECT name, committed_bytes, sealed FROM pack WHERE id = ?1");
  row.bind(id);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  return PackRow{id, row.text(0), row.number(1), row.number(2) != 0};
}

Result<std::vector<Index::PackRow>> Index::list_packs() {
  MutexLock lock(impl_->read_mutex);
  Statement rows =
      impl_->reader->prepare("SELECT id, name, committed_bytes, sealed FROM pack ORDER BY id");
  rows.bind();
  std::vector<PackRow> packs;
  while (CAKE_TRY(rows.step()))
    packs.push_back(
        {static_cast<uint32_t>(rows.number(0)), rows.text(1), rows.number(2), rows.number(3) != 0});
  return packs;
}

Status Index::seal_pack(uint32_t id, uint64_t committed_bytes) {
  MutexLock lock(impl_->write_mutex);
  Statement statement = impl_->writer->prepare(
      "UPDATE pack SET sealed = 1, committed_bytes = max(committed_bytes, ?2) WHERE id = ?1");
  return statement.bind(id, committed_bytes).run();
}

// --- Sums ---

namespace {

// The known digests of a content, or of all contents but some.
template <typename Each>
Status each_digest(Statement& rows, Each each) {
  while (CAKE_TRY(rows.step())) {
    const ByteSpan blob = rows.blob(1);
    for (uint64_t slot = 0; slot < blob.size() / kDigestBytes; slot++) {
      const Digest digest = digest_at(blob, slot);
      if (!digest.is_zero()) each(rows.number(0), digest);
    }
  }
  return {};
}

struct Use {
  uint64_t count = 0;
  bool elsewhere = false;
};
using Uses = std::unordered_map<Digest, Use, DigestHash>;

Result<Uses> digests_of(Connection& db, std::span<const RowId> contents) {
  Uses uses;
  for (const RowId content : contents) {
    Statement rows = db.prepare("SELECT content, digests FROM recipe_segment WHERE content = ?1");
    rows.bind(content);
    CAKE_TRY(each_digest(rows, [&](RowId, const Digest& digest) { uses[digest].count++; }));
  }
  return uses;
}

struct ChunkSize {
  uint64_t plain_bytes = 0;
  uint64_t encoded_bytes = 0;
};
Result<std::optional<ChunkSize>> chunk_size(Connection& db, const Digest& digest) {
  Statement row = db.prepare("SELECT plain_bytes, encoded_bytes FROM chunk WHERE digest = ?1");
  row.bind(ByteSpan(digest.bytes));
  if (!CAKE_TRY(row.step())) return std::nullopt;
  return ChunkSize{row.number(0), row.number(1)};
}

}  // namespace

Result<Usage> Index::usage() {
  MutexLock lock(impl_->read_mutex);
  Statement row = impl_->reader->prepare(
      "SELECT (SELECT count(DISTINCT content) FROM recipe_segment WHERE known > 0),"
      " (SELECT coalesce(sum(known_bytes), 0) FROM recipe_segment),"
      " count(*), coalesce(sum(plain_bytes), 0), coalesce(sum(encoded_bytes), 0) FROM chunk");
  row.bind();
  if (!CAKE_TRY(row.step())) return Error{Errc::corrupt, "index: a sum gave no row"};
  return Usage{row.number(0), row.number(1), row.number(2), row.number(3), row.number(4)};
}

Result<Cached> Index::cached(RowId content) {
  MutexLock lock(impl_->read_mutex);
  Connection& db = *impl_->reader;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::read));
  Cached cached;
  const std::array<RowId, 1> one = {content};
  for (const auto& [digest, use] : CAKE_TRY(digests_of(db, one))) {
    const std::optional<ChunkSize> size = CAKE_TRY(chunk_size(db, digest));
    if (!size) continue;
    cached.bytes += use.count * size->plain_bytes;
    cached.stored_bytes += size->encoded_bytes;
  }
  CAKE_TRY(transaction.commit());
  return cached;
}

Result<Index::SetUsage> Index::set_usage(std::span<const RowId> contents) {
  std::vector<RowId> sorted(contents.begin(), contents.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());

  MutexLock lock(impl_->read_mutex);
  Connection& db = *impl_->reader;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::read));
  Uses uses = CAKE_TRY(digests_of(db, sorted));
  {
    Statement rows = db.prepare("SELECT content, digests FROM recipe_segment");
    rows.bind();
    CAKE_TRY(each_digest(rows, [&](RowId content, const Digest& digest) {
      if (std::binary_search(sorted.begin(), sorted.end(), content)) return;
      const auto found = uses.find(digest);
      if (found != uses.end()) found->second.elsewhere = true;
    }));
  }
  SetUsage sum;
  for (const auto& [digest, use] : uses) {
    const std::optional<ChunkSize> size = CAKE_TRY(chunk_size(db, digest));
    if (!size) continue;
    sum.logical_bytes += use.count * size->plain_bytes;
    sum.plain_bytes += size->plain_bytes;
    sum.encoded_bytes += size->encoded_bytes;
    if (!use.elsewhere) sum.exclusive_encoded_bytes += size->encoded_bytes;
  }
  CAKE_TRY(transaction.commit());
  return sum;
}

Result<std::vector<CodecUsage>> Index::usage_by_codec() {
  MutexLock lock(impl_->read_mutex);
  Statement rows = impl_->reader->prepare(
      "SELECT codec, count(*), sum(plain_bytes), sum(encoded_bytes) FROM chunk GROUP BY codec"
      " ORDER BY codec");
  rows.bind();
  std::vector<CodecUsage> uses;
  while (CAKE_TRY(rows.step()))
    uses.push_back(
        {static_cast<CodecId>(rows.number(0)), rows.number(1), rows.number(2), rows.number(3)});
  return uses;
}

}  // namespace cake
