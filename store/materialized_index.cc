#include "store/materialized_index.h"

#include <utility>

#include "store/base/clock.h"
#include "store/index_connections.h"
#include "store/index_rows.h"

namespace cake {

MaterializedIndex::MaterializedIndex(std::unique_ptr<IndexConnections> connections)
    : connections_(std::move(connections)) {}
MaterializedIndex::~MaterializedIndex() = default;

Result<std::unique_ptr<MaterializedIndex>> MaterializedIndex::open(const std::string& path) {
  std::unique_ptr<IndexConnections> connections = CAKE_TRY(IndexConnections::open_durable(path));
  return std::unique_ptr<MaterializedIndex>(new MaterializedIndex(std::move(connections)));
}

namespace {

MaterializedRow read_row(const Statement& row) {
  return {static_cast<uint32_t>(row.number(0)), row.text(1), row.number(2),
          static_cast<PackKind>(row.number(3))};
}

}  // namespace

Result<std::optional<MaterializedRow>> MaterializedIndex::find(const std::string& name) {
  MutexLock lock(connections_->read_mutex);
  Statement row = connections_->reader->prepare(
      "SELECT id, name, committed_bytes, kind FROM pack WHERE name = ?1 AND kind != 0");
  row.bind(name);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  return read_row(row);
}

Result<std::vector<MaterializedRow>> MaterializedIndex::list() {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT id, name, committed_bytes, kind FROM pack WHERE kind != 0 ORDER BY id");
  rows.bind();
  std::vector<MaterializedRow> found;
  while (CAKE_TRY(rows.step())) found.push_back(read_row(rows));
  return found;
}

Result<MaterializedRow> MaterializedIndex::add(const std::string& name, uint64_t bytes) {
  MutexLock lock(connections_->write_mutex);
  Statement statement = connections_->writer->prepare(
      "INSERT INTO pack (name, kind, committed_bytes, sealed) VALUES (?1, ?2, ?3, 1)");
  CAKE_TRY(statement.bind(name, PackKind::arriving, bytes).run());
  return MaterializedRow{static_cast<uint32_t>(connections_->writer->last_insert_id()), name, bytes,
                         PackKind::arriving};
}

Status MaterializedIndex::set_kind(uint32_t pack, PackKind kind) {
  MutexLock lock(connections_->write_mutex);
  Statement statement = connections_->writer->prepare("UPDATE pack SET kind = ?2 WHERE id = ?1");
  return statement.bind(pack, kind).run();
}

Status MaterializedIndex::arrived(uint32_t pack) {
  MutexLock lock(connections_->write_mutex);
  Statement statement =
      connections_->writer->prepare("UPDATE pack SET kind = ?2 WHERE id = ?1 AND kind = ?3");
  return statement.bind(pack, PackKind::materialized, PackKind::arriving).run();
}

Status MaterializedIndex::stay(uint32_t pack, PackKind kind, std::span<const Digest> digests) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  for (const Digest& digest : digests) {
    Statement row = db.prepare("SELECT pack FROM chunk WHERE digest = ?1");
    row.bind(ByteSpan(digest.bytes));
    if (!CAKE_TRY(row.step()) || row.number(0) != pack) return {};
  }
  Statement statement = db.prepare("UPDATE pack SET kind = ?2 WHERE id = ?1 AND kind = ?3");
  CAKE_TRY(statement.bind(pack, kind, PackKind::leaving).run());
  return transaction.commit();
}

Status MaterializedIndex::remove(uint32_t pack) {
  MutexLock lock(connections_->write_mutex);
  Statement statement =
      connections_->writer->prepare("DELETE FROM pack WHERE id = ?1 AND kind != 0");
  return statement.bind(pack).run();
}

Result<std::vector<ChunkRow>> MaterializedIndex::chunks_in(uint32_t pack) {
  MutexLock lock(connections_->read_mutex);
  Statement rows =
      connections_->reader->prepare(cat("SELECT ", kChunkColumns, " FROM chunk WHERE pack = ?1"));
  rows.bind(pack);
  std::vector<ChunkRow> found;
  while (CAKE_TRY(rows.step())) found.push_back(read_chunk(rows));
  return found;
}

Result<std::vector<Location>> MaterializedIndex::move_in(uint32_t pack,
                                                         std::span<const PlacedChunk> chunks) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  std::vector<Location> left;
  const int64_t now = unix_now();
  for (const PlacedChunk& chunk : chunks) {
    bool is_there = false;
    {
      Statement row = db.prepare(
          "SELECT chunk.pack, offset, encoded_bytes, plain_bytes, codec, checksum,"
          " coalesce(pack.kind, 0)"
          " FROM chunk LEFT JOIN pack ON pack.id = chunk.pack WHERE digest = ?1");
      row.bind(ByteSpan(chunk.digest.bytes));
      is_there = CAKE_TRY(row.step());
      if (is_there) {
        // One materialized copy is as good as another.
        if (row.number(6) != 0) continue;
        left.push_back(read_location(row, 0));
      }
    }
    if (is_there) {
      Statement update = db.prepare(
          "UPDATE chunk SET pack = ?2, offset = ?3, encoded_bytes = ?4, plain_bytes = ?4,"
          " codec = 0, checksum = ?5, base = NULL WHERE digest = ?1");
      CAKE_TRY(update
                   .bind(ByteSpan(chunk.digest.bytes), pack, chunk.offset, chunk.plain_bytes,
                         chunk.checksum)
                   .run());
    } else {
      Statement insert = db.prepare(
          "INSERT INTO chunk (digest, pack, offset, encoded_bytes, plain_bytes, codec, checksum,"
          " base, last_access) VALUES (?1, ?2, ?3, ?4, ?4, 0, ?5, NULL, ?6)");
      CAKE_TRY(insert
                   .bind(ByteSpan(chunk.digest.bytes), pack, chunk.offset, chunk.plain_bytes,
                         chunk.checksum, now)
                   .run());
    }
  }
  CAKE_TRY(transaction.commit());
  return left;
}

Status MaterializedIndex::move_out(std::span<const MovedChunk> chunks) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  Statement update = db.prepare(
      "UPDATE chunk SET pack = ?2, offset = ?3, encoded_bytes = ?4, codec = ?5"
      " WHERE digest = ?1 AND pack = ?6 AND offset = ?7");
  for (const MovedChunk& chunk : chunks)
    CAKE_TRY(update
                 .bind(ByteSpan(chunk.digest.bytes), chunk.to.pack, chunk.to.offset,
                       chunk.to.encoded_bytes, chunk.to.codec, chunk.from.pack, chunk.from.offset)
                 .run());
  return transaction.commit();
}

Status MaterializedIndex::drop(uint32_t pack, std::span<const Digest> digests) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  Statement statement = db.prepare("DELETE FROM chunk WHERE digest = ?1 AND pack = ?2");
  for (const Digest& digest : digests) CAKE_TRY(statement.bind(ByteSpan(digest.bytes), pack).run());
  return transaction.commit();
}

}  // namespace cake
