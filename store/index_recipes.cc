// Recipes: how a content is cut, and what its extents are.
#include "store/index_recipes.h"

#include <algorithm>
#include <map>
#include <utility>

#include "store/base/log.h"
#include "store/index_connections.h"
#include "store/index_rows.h"
#include "store/materialized_index.h"

namespace cake {

namespace {

// What the cutters of format.h produce; a newer number is another program's.
constexpr int kCutterVersion = 1;

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

Result<uint64_t> plain_bytes_of(Connection& db, const PublishedExtent& extent) {
  if (extent.location) return extent.location->plain_bytes;
  if (extent.plain_bytes != 0) return extent.plain_bytes;
  Statement row = db.prepare("SELECT plain_bytes FROM chunk WHERE digest = ?1");
  row.bind(ByteSpan(extent.digest.bytes));
  return CAKE_TRY(row.step()) ? row.number(0) : 0;
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

Status forget_verification(Connection& db, RowId content) {
  Statement forget = db.prepare("UPDATE content SET verified = ?2 WHERE id = ?1");
  return forget.bind(content, Verification::unknown).run();
}

// --- Digests, with a publication ---

namespace {

Status merge_segment(Connection& db, RowId content, uint64_t number,
                     std::span<const PublishedExtent* const> extents) {
  Segment segment = CAKE_TRY(Segment::load(db, content, number));
  for (const PublishedExtent* extent : extents)
    segment.set(extent->ordinal % kSegmentDigests, extent->digest,
                CAKE_TRY(plain_bytes_of(db, *extent)));
  return segment.save(db);
}

}  // namespace

Status merge_digests(Connection& db, std::span<const PublishedExtent> extents) {
  std::map<std::pair<RowId, uint64_t>, std::vector<const PublishedExtent*>> by_segment;
  for (const PublishedExtent& extent : extents) {
    if (extent.content == 0) continue;
    if (extent.ordinal < kMaxOrdinal)
      by_segment[{extent.content, extent.ordinal / kSegmentDigests}].push_back(&extent);
    else
      log_warn(cat("extent ", extent.ordinal, " of content ", extent.content, ": no such extent"));
  }
  for (const auto& [key, members] : by_segment) {
    const Status merged = merge_segment(db, key.first, key.second, members);
    // One damaged recipe must not keep all chunks from being stored: its own digests are lost.
    if (!merged && merged.error().code == Errc::corrupt)
      log_warn(merged.error().with(cat("digests of content ", key.first, " not added")).message);
    else
      CAKE_TRY(merged);
  }
  return {};
}

// --- Cut and digests ---

Result<std::optional<RecipeRow>> Index::find_recipe(RowId content) {
  MutexLock lock(connections_->read_mutex);
  Statement row =
      connections_->reader->prepare("SELECT cutter, version, head FROM recipe WHERE content = ?1");
  row.bind(content);
  if (!CAKE_TRY(row.step())) return std::nullopt;
  if (row.integer(1) != kCutterVersion)
    return Error{Errc::unsupported,
                 cat("index: content ", content, " was cut by version ", row.integer(1))};
  return RecipeRow{static_cast<Cutter>(row.number(0)), to_buffer(row.blob(2))};
}

Status Index::put_recipe(RowId content, const RecipeRow& recipe) {
  MutexLock lock(connections_->write_mutex);
  Statement statement = connections_->writer->prepare(
      "INSERT INTO recipe (content, cutter, version, head) VALUES (?1, ?2, ?3, ?4)"
      " ON CONFLICT DO NOTHING");
  return statement.bind(content, recipe.cutter, kCutterVersion, ByteSpan(recipe.head)).run();
}

Result<std::vector<Digest>> Index::find_digests(RowId content, uint64_t first, uint64_t count) {
  const std::optional<uint64_t> end = checked_add(first, count);
  if (!end || *end > kMaxOrdinal) return Error{Errc::invalid, "index: extent ordinal too large"};
  std::vector<Digest> digests(count);
  if (count == 0) return digests;
  MutexLock lock(connections_->read_mutex);
  Statement rows = connections_->reader->prepare(
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

Status Index::drop_digests(RowId content, std::span<const uint64_t> ordinals) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
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
  CAKE_TRY(forget_verification(db, content));
  return transaction.commit();
}

Status Index::drop_recipe(RowId content) {
  MutexLock lock(connections_->write_mutex);
  Connection& db = *connections_->writer;
  Transaction transaction = CAKE_TRY(Transaction::begin(db, Transaction::Kind::write));
  for (const char* sql :
       {"DELETE FROM recipe WHERE content = ?1", "DELETE FROM recipe_segment WHERE content = ?1"}) {
    Statement statement = db.prepare(sql);
    CAKE_TRY(statement.bind(content).run());
  }
  // Kept as a whole file (materialize.h), it is not to be read by passthrough any more.
  Statement leave = db.prepare(
      "UPDATE pack SET kind = ?2 WHERE kind IN (?3, ?4) AND name ="
      " (SELECT lower(hex(name)) || '.raw' FROM content WHERE id = ?1)");
  CAKE_TRY(
      leave.bind(content, PackKind::leaving, PackKind::materialized, PackKind::arriving).run());
  CAKE_TRY(forget_verification(db, content));
  return transaction.commit();
}

}  // namespace cake
