#include "store/index_upkeep.h"

#include <algorithm>
#include <utility>

#include "store/base/clock.h"
#include "store/index_connections.h"
#include "store/index_recipes.h"
#include "store/index_rows.h"

namespace cake {

IndexUpkeep::IndexUpkeep(std::unique_ptr<IndexConnections> connections)
    : connections_(std::move(connections)) {}
IndexUpkeep::~IndexUpkeep() = default;

Result<std::unique_ptr<IndexUpkeep>> IndexUpkeep::open(const std::string& path) {
  std::unique_ptr<IndexConnections> connections = CAKE_TRY(IndexConnections::open_durable(path));
  return std::unique_ptr<IndexUpkeep>(new IndexUpkeep(std::move(connections)));
}

// --- Looking ---

namespace {

void sort_unique(std::vector<uint64_t>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

void add_keys(ByteSpan digests, std::vector<uint64_t>& keys) {
  for (uint64_t at = 0; at + kDigestBytes <= digests.size(); at += kDigestBytes) {
    const Digest digest = to_digest(digests.subspan(at, kDigestBytes));
    if (!digest.is_zero()) keys.push_back(digest_key(digest));
  }
}

// A snapshot's row ids of contents.
void add_ids(ByteSpan bytes, std::vector<RowId>& ids) {
  for (uint64_t at = 0; at + 8 <= bytes.size(); at += 8) ids.push_back(load_le64(&bytes[at]));
}

using Portion = std::function<Status(size_t first, size_t end)>;

// A transaction each, not synced one by one: when the power goes, the last of them are lost.
Status run_portions(Connection& db, size_t count, const Portion& each) {
  const auto run = [&]() -> Status {
    for (size_t first = 0; first < count; first += IndexUpkeep::kPortion) {
      Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
      CAKE_TRY(each(first, std::min(count, first + IndexUpkeep::kPortion)));
      CAKE_TRY(transaction.commit());
    }
    return {};
  };
  CAKE_TRY(db.execute("PRAGMA synchronous = NORMAL;"));
  Status done = run();
  CAKE_TRY(db.execute("PRAGMA synchronous = FULL;"));
  return done;
}

// All of them are on the disk when it returns: one sync for all, since each holds up who reads.
Status run_portions_durably(Connection& db, size_t count, const Portion& each) {
  CAKE_TRY(run_portions(db, count, each));
  return sync_commits(db, "FULL");
}

}  // namespace

Status IndexUpkeep::each_chunk(const std::function<Status(const ChunkRow&)>& each) {
  // In portions, each a view of its own: one long view would keep the log from being reset.
  Digest after;
  bool is_first = true;
  while (true) {
    std::vector<ChunkRow> portion;
    {
      MutexLock lock(connections_->read_mutex);
      Statement rows = connections_->reader->prepare(cat(
          "SELECT ", kChunkColumns, " FROM chunk WHERE digest >= ?1 ORDER BY digest LIMIT 4096"));
      rows.bind(ByteSpan(after.bytes));
      while (CAKE_TRY(rows.step())) {
        const ChunkRow row = read_chunk(rows);
        const Digest& last = portion.empty() ? after : portion.back().digest;
        if (!is_first && row.digest == after) continue;
        // Looking on from there would not end.
        if (!(is_first && portion.empty()) && !(last < row.digest))
          return Error{Errc::corrupt, "index: the chunks are not in order"};
        portion.push_back(row);
      }
    }
    if (portion.empty()) return {};
    for (const ChunkRow& row : portion) CAKE_TRY(each(row));
    after = portion.back().digest;
    is_first = false;
  }
}

Result<std::vector<uint64_t>> IndexUpkeep::digest_keys(std::span<const RowId> contents) {
  std::vector<uint64_t> keys;
  for (const RowId content : contents) {
    MutexLock lock(connections_->read_mutex);
    Statement rows =
        connections_->reader->prepare("SELECT digests FROM recipe_segment WHERE content = ?1");
    rows.bind(content);
    while (CAKE_TRY(rows.step())) add_keys(rows.blob(0), keys);
  }
  sort_unique(keys);
  return keys;
}

Result<std::vector<uint64_t>> IndexUpkeep::digest_keys_but(std::span<const RowId> contents) {
  std::vector<RowId> sorted(contents.begin(), contents.end());
  std::sort(sorted.begin(), sorted.end());
  std::vector<uint64_t> keys;
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare("SELECT content, digests FROM recipe_segment");
  rows.bind();
  while (CAKE_TRY(rows.step()))
    if (!std::binary_search(sorted.begin(), sorted.end(), rows.number(0)))
      add_keys(rows.blob(1), keys);
  sort_unique(keys);
  return keys;
}

Result<std::vector<RowId>> IndexUpkeep::pinned_contents() {
  std::vector<RowId> contents;
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT snapshot.contents FROM pin"
      " LEFT JOIN ref ON ref.repo = pin.repo AND ref.revision = pin.revision"
      " JOIN snapshot ON snapshot.repo = pin.repo"
      " AND snapshot.commit_id = coalesce(ref.commit_id, pin.revision)");
  rows.bind();
  while (CAKE_TRY(rows.step())) add_ids(rows.blob(0), contents);
  sort_unique(contents);
  return contents;
}

Result<std::vector<PinRow>> IndexUpkeep::list_pins() {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
      "SELECT repo, revision, pinned_at FROM pin ORDER BY repo, revision");
  rows.bind();
  std::vector<PinRow> pins;
  while (CAKE_TRY(rows.step())) pins.push_back({rows.number(0), rows.text(1), rows.integer(2)});
  return pins;
}

Result<std::vector<RowId>> IndexUpkeep::named_contents() {
  std::vector<RowId> contents;
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare("SELECT contents FROM snapshot");
  rows.bind();
  while (CAKE_TRY(rows.step())) add_ids(rows.blob(0), contents);
  sort_unique(contents);
  return contents;
}

Result<std::vector<RowId>> IndexUpkeep::all_contents() {
  std::vector<RowId> contents;
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare("SELECT id FROM content ORDER BY id");
  rows.bind();
  while (CAKE_TRY(rows.step())) contents.push_back(rows.number(0));
  return contents;
}

Result<Status> IndexUpkeep::check_segments(RowId content, bool repairs) {
  struct Wrong {
    uint64_t segment = 0;
    uint64_t known = 0;
    bool is_odd = false;  // not a whole number of digests
  };
  std::vector<Wrong> wrong;
  {
    MutexLock lock(connections_->read_mutex);
    Statement rows = connections_->reader->prepare(
        "SELECT segment, known, digests FROM recipe_segment WHERE content = ?1");
    rows.bind(content);
    while (CAKE_TRY(rows.step())) {
      const ByteSpan digests = rows.blob(2);
      uint64_t known = 0;
      for (uint64_t at = 0; at + kDigestBytes <= digests.size(); at += kDigestBytes)
        if (!to_digest(digests.subspan(at, kDigestBytes)).is_zero()) known++;
      const bool is_odd = digests.size() % kDigestBytes != 0;
      if (known != rows.number(1) || is_odd) wrong.push_back({rows.number(0), known, is_odd});
    }
  }
  if (wrong.empty()) return Status();
  if (repairs) {
    MutexLock lock(connections_->write_mutex);
    Connection& db = *connections_->writer;
    Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
    Statement drop = db.prepare("DELETE FROM recipe_segment WHERE content = ?1 AND segment = ?2");
    // Digests are learnt again with the next read; a sum that was wrong says one of them may be.
    for (const Wrong& row : wrong) CAKE_TRY(drop.bind(content, row.segment).run());
    CAKE_TRY(forget_verification(db, content));
    CAKE_TRY(transaction.commit());
  }
  return Status(Error{Errc::corrupt, cat("recipe of content ", content, ": ", wrong.size(),
                                         " segment(s) do not add up")});
}

// --- Chunks ---

Status IndexUpkeep::drop_chunks(std::span<const ChunkRow> rows, bool remember) {
  const int64_t now = unix_now();
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  return run_portions_durably(db, rows.size(), [&](size_t first, size_t end) -> Status {
    Statement drop =
        db.prepare("DELETE FROM chunk WHERE digest = ?1 AND pack = ?2 AND offset = ?3");
    Statement note =
        db.prepare("INSERT OR REPLACE INTO ghost (key, evicted_at, proven) VALUES (?1, ?2, ?3)");
    for (const ChunkRow& row : rows.subspan(first, end - first)) {
      CAKE_TRY(drop.bind(ByteSpan(row.digest.bytes), row.location.pack, row.location.offset).run());
      if (remember) CAKE_TRY(note.bind(digest_key(row.digest), now, row.uses > 0).run());
    }
    return {};
  });
}

Status IndexUpkeep::restore_chunks(std::span<const ChunkRow> rows) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  return run_portions_durably(db, rows.size(), [&](size_t first, size_t end) -> Status {
    Statement put = db.prepare(
        "INSERT INTO chunk (digest, pack, offset, encoded_bytes, plain_bytes, codec, checksum,"
        " base, last_access, uses) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, ?9)"
        " ON CONFLICT DO NOTHING");
    for (const ChunkRow& row : rows.subspan(first, end - first)) {
      const Location& at = row.location;
      CAKE_TRY(put.bind(ByteSpan(row.digest.bytes), at.pack, at.offset, at.encoded_bytes,
                        at.plain_bytes, at.codec, at.checksum, row.last_access, row.uses)
                   .run());
    }
    return {};
  });
}

Result<std::vector<IndexUpkeep::Ghost>> IndexUpkeep::ghosts() {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare("SELECT key, proven FROM ghost");
  rows.bind();
  std::vector<Ghost> ghosts;
  while (CAKE_TRY(rows.step())) ghosts.push_back({rows.number(0), rows.number(1) != 0});
  std::sort(ghosts.begin(), ghosts.end());
  return ghosts;
}

Status IndexUpkeep::drop_ghosts(std::span<const uint64_t> keys) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  return run_portions(db, keys.size(), [&](size_t first, size_t end) -> Status {
    Statement drop = db.prepare("DELETE FROM ghost WHERE key = ?1");
    for (size_t i = first; i < end; i++) CAKE_TRY(drop.bind(keys[i]).run());
    return {};
  });
}

// In millionths, in the table of versions and the like.
Result<double> IndexUpkeep::probation_share(double otherwise) {
  MutexLock lock(connections_->read_mutex);
  Statement row =
      connections_->reader->prepare("SELECT value FROM meta WHERE key = 'probation_share'");
  row.bind();
  return CAKE_TRY(row.step()) ? static_cast<double>(row.integer(0)) / 1e6 : otherwise;
}

Status IndexUpkeep::set_probation_share(double share) {
  MutexLock lock(connections_->write_mutex);
  Statement put = connections_->writer->prepare(
      "INSERT OR REPLACE INTO meta (key, value) VALUES ('probation_share', ?1)");
  return put.bind(static_cast<int64_t>(share * 1e6)).run();
}

Status IndexUpkeep::trim_ghosts(uint64_t count) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  uint64_t ghosts = 0;
  {
    // Gone before the deletion: who writes while it reads is refused when others write too.
    Statement sum = db.prepare("SELECT count(*) FROM ghost");
    sum.bind();
    if (CAKE_TRY(sum.step())) ghosts = sum.number(0);
  }
  if (ghosts <= count + count / 4) return {};
  Statement drop = db.prepare(
      "DELETE FROM ghost WHERE key IN (SELECT key FROM ghost ORDER BY evicted_at LIMIT ?1)");
  return drop.bind(ghosts - count).run();
}

Status IndexUpkeep::touch_chunks(std::span<const Digest> digests, int64_t now) {
  std::vector<Digest> sorted(digests.begin(), digests.end());
  std::sort(sorted.begin(), sorted.end());
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  return run_portions(db, sorted.size(), [&](size_t first, size_t end) -> Status {
    // A time ahead of ours is that of a clock that was wrong.
    Statement touch = db.prepare(
        "UPDATE chunk SET last_access = ?2, uses = min(uses + 1, ?3)"
        " WHERE digest = ?1 AND (last_access <= ?2 - ?4 OR last_access > ?2)");
    for (size_t i = first; i < end; i++)
      CAKE_TRY(touch.bind(ByteSpan(sorted[i].bytes), now, kMaxUses, kUseSeconds).run());
    return {};
  });
}

Status IndexUpkeep::touch_contents(std::span<const RowId> contents, int64_t now) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  return run_portions(db, contents.size(), [&](size_t first, size_t end) -> Status {
    Statement touch = db.prepare("UPDATE content SET last_access = ?2 WHERE id = ?1");
    for (size_t i = first; i < end; i++) CAKE_TRY(touch.bind(contents[i], now).run());
    return {};
  });
}

// --- Names ---

Result<bool> IndexUpkeep::drop_pin(RowId repo, const std::string& revision) {
  MutexLock lock(connections_->write_mutex);
  Statement drop =
      connections_->writer->prepare("DELETE FROM pin WHERE repo = ?1 AND revision = ?2");
  CAKE_TRY(drop.bind(repo, revision).run());
  return connections_->writer->changes() > 0;
}

Status IndexUpkeep::drop_snapshots(RowId repo, const std::string& commit) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  const std::string_view scripts[] = {
      "DELETE FROM pin WHERE repo = ?1 AND (?2 = '' OR revision = ?2 OR revision IN"
      " (SELECT revision FROM ref WHERE repo = ?1 AND commit_id = ?2))",
      "DELETE FROM ref WHERE repo = ?1 AND (?2 = '' OR commit_id = ?2)",
      "DELETE FROM snapshot WHERE repo = ?1 AND (?2 = '' OR commit_id = ?2)"};
  for (const std::string_view script : scripts) {
    Statement drop = db.prepare(script);
    CAKE_TRY(drop.bind(repo, commit).run());
  }
  return transaction.commit();
}

Status IndexUpkeep::forget_contents(std::span<const RowId> contents) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  return run_portions_durably(db, contents.size(), [&](size_t first, size_t end) -> Status {
    Statement segments = db.prepare("DELETE FROM recipe_segment WHERE content = ?1");
    Statement recipe = db.prepare("DELETE FROM recipe WHERE content = ?1");
    Statement row = db.prepare("UPDATE content SET verified = 0, error = NULL WHERE id = ?1");
    for (size_t i = first; i < end; i++)
      for (Statement* statement : {&segments, &recipe, &row})
        CAKE_TRY(statement->bind(contents[i]).run());
    return {};
  });
}

// --- Packs ---

Result<std::vector<uint32_t>> IndexUpkeep::whole_packs() {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare("SELECT id FROM pack WHERE kind != 0 ORDER BY id");
  rows.bind();
  std::vector<uint32_t> packs;
  while (CAKE_TRY(rows.step())) packs.push_back(static_cast<uint32_t>(rows.number(0)));
  return packs;
}

Result<bool> IndexUpkeep::drop_pack(uint32_t id) {
  MutexLock lock(connections_->write_mutex);
  Statement drop = connections_->writer->prepare(
      "DELETE FROM pack WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM chunk WHERE pack = ?1)");
  CAKE_TRY(drop.bind(id).run());
  return connections_->writer->changes() > 0;
}

Status IndexUpkeep::shorten_pack(uint32_t id, uint64_t committed_bytes) {
  MutexLock lock(connections_->write_mutex);
  Statement shorten = connections_->writer->prepare(
      "UPDATE pack SET committed_bytes = ?2, sealed = 1 WHERE id = ?1");
  return shorten.bind(id, committed_bytes).run();
}

Result<std::vector<std::string>> IndexUpkeep::integrity_problems() {
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare("PRAGMA integrity_check(100)");
  rows.bind();
  std::vector<std::string> problems;
  while (CAKE_TRY(rows.step()))
    if (rows.text(0) != "ok") problems.push_back(rows.text(0));
  return problems;
}

}  // namespace cake
