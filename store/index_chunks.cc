// Where chunks lie: chunk and pack rows, and the publication that makes them.
#include <algorithm>

#include "store/base/clock.h"
#include "store/index_connections.h"
#include "store/index_recipes.h"
#include "store/index_rows.h"
#include "store/materialized_index.h"

namespace cake {

namespace {

Result<bool> is_named(Connection& db, const Digest& digest, const Location& location) {
  Statement row = db.prepare("SELECT 1 FROM chunk WHERE digest = ?1 AND pack = ?2 AND offset = ?3");
  row.bind(ByteSpan(digest.bytes), location.pack, location.offset);
  return row.step();
}

// Adds to `unnamed` what has no row after it, as replace_chunks does.
Status insert_chunks(Connection& db, std::span<const PublishedExtent> extents, uint32_t pack,
                     std::vector<Location>& unnamed) {
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
                       static_cast<int64_t>(digest_key(extent->digest)))
                 .run());
    // Another process was first; or this is the second try, whose rows are there.
    if (db.changes() == 0 && !CAKE_TRY(is_named(db, extent->digest, at))) unnamed.push_back(at);
  }
  return {};
}

Status replace_chunks(Connection& db, std::span<const PublishedExtent> extents, uint32_t pack,
                      std::vector<Location>& unnamed) {
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
    // A row that is gone may come back (Reclaimer::remove), so what it named stays.
    const bool is_moved = db.changes() > 0 || CAKE_TRY(is_named(db, extent.digest, at));
    unnamed.push_back(is_moved ? *extent.replaces : at);
  }
  return {};
}

}  // namespace

// --- Chunks ---

Result<std::vector<std::optional<Location>>> Index::find_chunks(std::span<const Digest> digests) {
  static const std::string kSql = cat("SELECT ", kLocationColumns, " FROM chunk WHERE digest = ?1");
  std::vector<std::optional<Location>> locations;
  locations.reserve(digests.size());
  MutexLock lock(connections_->read_mutex);
  Transaction transaction =
      CAKE_TRY(Transaction::begin(*connections_->reader, Transaction::Kind::read));
  {
    Statement row = connections_->reader->prepare(kSql);
    for (const Digest& digest : digests) {
      row.bind(ByteSpan(digest.bytes));
      locations.push_back(CAKE_TRY(row.step()) ? std::optional(read_location(row, 0))
                                               : std::nullopt);
    }
  }
  CAKE_TRY(transaction.commit());
  return locations;
}

Result<std::vector<Location>> Index::publish(std::span<const PublishedExtent> extents,
                                             uint32_t pack, uint64_t committed_bytes) {
  std::vector<Location> unnamed;
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  CAKE_TRY(insert_chunks(db, extents, pack, unnamed));
  CAKE_TRY(replace_chunks(db, extents, pack, unnamed));
  CAKE_TRY(merge_digests(db, extents));
  Statement statement =
      db.prepare("UPDATE pack SET committed_bytes = max(committed_bytes, ?2) WHERE id = ?1");
  CAKE_TRY(statement.bind(pack, committed_bytes).run());
  CAKE_TRY(transaction.commit());
  return unnamed;
}

Status Index::sync() {
  MutexLock lock(connections_->write_mutex);
  return sync_commits(*connections_->writer, "NORMAL");
}

Status Index::drop_chunk(const Digest& digest, const Location& location) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  Statement drop = db.prepare(
      "DELETE FROM chunk WHERE digest = ?1 AND pack = ?2 AND offset = ?3 AND encoded_bytes = ?4"
      " AND plain_bytes = ?5 AND codec = ?6 AND checksum = ?7");
  CAKE_TRY(drop.bind(ByteSpan(digest.bytes), location.pack, location.offset, location.encoded_bytes,
                     location.plain_bytes, location.codec, location.checksum)
               .run());
  if (db.changes() > 0) {
    // Passthrough compares nothing: a whole file with one bad chunk is not for it any more.
    Statement leave = db.prepare("UPDATE pack SET kind = ?2 WHERE id = ?1 AND kind IN (?3, ?4)");
    CAKE_TRY(
        leave.bind(location.pack, PackKind::leaving, PackKind::materialized, PackKind::arriving)
            .run());
  }
  return transaction.commit();
}

// --- Packs ---

Result<uint32_t> Index::add_pack(const std::string& name) {
  MutexLock lock(connections_->write_mutex);
  return static_cast<uint32_t>(
      CAKE_TRY(find_or_insert(*connections_->writer, "SELECT id FROM pack WHERE name = ?1",
                              "INSERT INTO pack (name) VALUES (?1) ON CONFLICT DO NOTHING", name)));
}

Result<std::optional<Index::PackRow>> Index::find_pack(uint32_t id) {
  MutexLock lock(connections_->read_mutex);
  Statement row =
      connections_->reader->prepare("SELECT name, committed_bytes, sealed FROM pack WHERE id = ?1");
  row.bind(id);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  return PackRow{id, row.text(0), row.number(1), row.number(2) != 0};
}

Result<std::vector<Index::PackRow>> Index::list_packs() {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT id, name, committed_bytes, sealed FROM pack ORDER BY id");
  rows.bind();
  std::vector<PackRow> packs;
  while (CAKE_TRY(rows.step()))
    packs.push_back(
        {static_cast<uint32_t>(rows.number(0)), rows.text(1), rows.number(2), rows.number(3) != 0});
  return packs;
}

Status Index::seal_pack(uint32_t id, uint64_t committed_bytes) {
  MutexLock lock(connections_->write_mutex);
  Statement statement = connections_->writer->prepare(
      "UPDATE pack SET sealed = 1, committed_bytes = max(committed_bytes, ?2) WHERE id = ?1");
  return statement.bind(id, committed_bytes).run();
}

}  // namespace cake
