#include "store/index_schema.h"

#include <array>

namespace cake {

namespace {

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

}  // namespace

Status migrate_index(Connection& db, const std::string& path) {
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

}  // namespace cake
