// Sums over contents and chunks, for commands.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "store/index_connections.h"
#include "store/index_rows.h"

namespace cake {

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
  MutexLock lock(connections_->read_mutex);
  Statement row = connections_->reader->prepare(
      "SELECT (SELECT count(DISTINCT content) FROM recipe_segment WHERE known > 0),"
      " (SELECT coalesce(sum(known_bytes), 0) FROM recipe_segment),"
      " count(*), coalesce(sum(plain_bytes), 0), coalesce(sum(encoded_bytes), 0) FROM chunk");
  row.bind();
  if (!CAKE_TRY(row.step())) return Error{Errc::corrupt, "index: a sum gave no row"};
  return Usage{row.number(0), row.number(1), row.number(2), row.number(3), row.number(4)};
}

Result<Cached> Index::cached(RowId content) {
  MutexLock lock(connections_->read_mutex);
  Connection& db = *connections_->reader;
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

  MutexLock lock(connections_->read_mutex);
  Connection& db = *connections_->reader;
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
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
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
