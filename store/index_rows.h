// Rows of the index, as several of its tables share them.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "store/index_upkeep.h"
#include "store/sqlite.h"

namespace cake {

// --- chunk ---

constexpr std::string_view kLocationColumns =
    "pack, offset, encoded_bytes, plain_bytes, codec, checksum";

// These columns, from `column` on.
inline Location read_location(const Statement& row, int column) {
  Location location;
  location.pack = static_cast<uint32_t>(row.number(column));
  location.offset = row.number(column + 1);
  location.encoded_bytes = static_cast<uint32_t>(row.number(column + 2));
  location.plain_bytes = static_cast<uint32_t>(row.number(column + 3));
  location.codec = static_cast<CodecId>(row.number(column + 4));
  location.checksum = row.number(column + 5);
  return location;
}

// A digest's column; what is not as long as one is filled with zeros, and names no chunk.
inline Digest to_digest(ByteSpan bytes) {
  Digest digest;
  std::memcpy(digest.bytes.data(), bytes.data(), std::min(bytes.size(), kDigestBytes));
  return digest;
}

// All that a chunk's row says but its base.
constexpr std::string_view kChunkColumns =
    "digest, pack, offset, encoded_bytes, plain_bytes, codec, checksum, last_access, uses";

// These columns.
inline ChunkRow read_chunk(const Statement& row) {
  return {to_digest(row.blob(0)), read_location(row, 1), row.integer(7),
          static_cast<unsigned>(row.number(8))};
}

// --- recipe_segment ---

// Digests a row; a slot is a digest's place in it.
constexpr uint64_t kSegmentDigests = 1024;
// 2^40 extents are an exabyte; more is a bug or a lie.
constexpr uint64_t kMaxOrdinal = uint64_t{1} << 40;

inline Digest digest_at(ByteSpan digests, uint64_t slot) {
  Digest digest;
  std::memcpy(digest.bytes.data(), &digests[slot * kDigestBytes], kDigestBytes);
  return digest;
}

// --- any ---

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

}  // namespace cake
