#include "store/unnamed.h"

#include <gtest/gtest.h>

#include "store/check.h"
#include "store/evict.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

uint64_t blocks(const TempDir& dir) {
  return must(entry_pack_blocks(dir / "packs"));
}

std::vector<ChunkRow> rows_of(Store& store) {
  std::vector<ChunkRow> rows;
  must(store.upkeep().each_chunk([&](const ChunkRow& row) -> Status {
    rows.push_back(row);
    return {};
  }));
  return rows;
}

// As an eviction that was killed before it punched: `count` chunks without rows.
void leave_unnamed(const TempDir& dir, uint64_t count) {
  StoreFixture fixture(dir.path());
  for (uint64_t i = 0; i < count; i++) fixture.put(0, 0, random_bytes(i, kMiB));
  must(fixture.chunks().flush());
  must(fixture.store().upkeep().drop_chunks(rows_of(fixture.store()), false));
}

// Two processes, each of which finds the chunk new.
TEST(Unnamed, IsNotLeftByWhoLosesAChunkToAnother) {
  TempDir dir;
  std::vector<Digest> digests;
  {
    StoreFixture one(dir.path()), other(dir.path());
    const RowId repo = must(one.index().get_repo(kSource, kRepo));
    std::vector<TreeEntry> entries;
    for (const std::string path : {"a", "b"}) {
      entries.push_back({path, 8 * kMiB, {}});
      entries.back().ids.sha256 = blake3(as_bytes(path)).hex();
    }
    const auto snapshot = must(one.index().put_snapshot(repo, kCommit, 1, entries));
    must(one.chunks().record_snapshot(kSource, *snapshot));
    const auto put = [&](StoreFixture& fixture, uint32_t entry, uint64_t ordinal) {
      const auto row = must(fixture.index().find_content(snapshot->content_id(entry))).value();
      fixture.put(row.id, ordinal, random_bytes(ordinal, kMiB));
    };
    for (uint64_t i = 0; i < 8; i++) {
      digests.push_back(blake3(random_bytes(i, kMiB)));
      put(one, 0, i);
      put(other, 1, i);
    }
    must(one.chunks().flush());
    must(other.chunks().flush());
    EXPECT_EQ(must(one.index().usage()).chunks, 8u);
  }
  EXPECT_LT(blocks(dir), 9 * kMiB);
  // What the lost entries told is told otherwise.
  for (const char* suffix : {"", "-wal", "-shm"})
    must(remove_file(cat(dir.path(), "/index.db", suffix)));
  StoreFixture fixture(dir.path());
  const RowId repo = must(fixture.index().get_repo(kSource, kRepo));
  const auto snapshot = must(fixture.index().find_snapshot(repo, kCommit));
  for (const uint32_t entry : {0u, 1u})
    EXPECT_EQ(must(fixture.index().find_digests(snapshot->content_id(entry), 0, 8)), digests);
  for (uint64_t i = 0; i < 8; i++) EXPECT_EQ(fixture.find(digests[i]), random_bytes(i, kMiB));
}

TEST(Unnamed, IsGivenBackByRepairs) {
  TempDir dir;
  leave_unnamed(dir, 8);
  StoreFixture fixture(dir.path());
  const Buffer named = random_bytes(100, kMiB);
  fixture.put(0, 0, named);
  must(fixture.chunks().flush());
  CheckOptions options;
  options.repairs = true;
  EXPECT_TRUE(must(check_store(fixture.store(), options)).is_clean());
  EXPECT_LT(blocks(dir), 4 * kMiB);  // and what the writer has taken ahead
  EXPECT_EQ(fixture.find(blake3(named)), named);
}

// Also in the pack that this process itself goes on with.
TEST(Unnamed, GoesBeforeAnythingIsRefused) {
  TempDir dir;
  leave_unnamed(dir, 32);
  StoreOptions options = small_store_options(dir.path());
  options.cache_size = PercentSize{false, 36 * kMiB};
  Metrics metrics;
  const auto store = must(Store::open(options, metrics));
  std::atomic<int> stored{0};
  for (uint64_t i = 0; i < 16; i++) {
    const Buffer bytes = random_bytes(100 + i, kMiB);
    auto plain = store->buffers().allocate(bytes.size());
    std::memcpy(plain->bytes().data(), bytes.data(), bytes.size());
    PutRequest request;
    request.plain = plain;
    request.done = [&](const Digest&, Result<Location> at) { stored += at.ok(); };
    store->chunks().put(std::move(request));
  }
  must(store->chunks().flush());
  EXPECT_EQ(stored, 16);
  EXPECT_EQ(must(store->index().usage()).chunks, 16u);
}

TEST(Unnamed, SparesWhatHasRowsAndRecords) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId content = fixture.content("a", kGiB);
  // Small ones share blocks with those that go.
  for (uint64_t i = 0; i < 40; i++)
    fixture.put(content, i, random_bytes(i, i % 3 == 0 ? 100'000 : 700));
  must(fixture.chunks().flush());
  std::vector<ChunkRow> rows = rows_of(fixture.store());
  const std::vector<ChunkRow> gone(rows.begin(), rows.begin() + 20);
  must(fixture.store().upkeep().drop_chunks(gone, false));
  EXPECT_GT(must(fixture.store().evictor().give_back_unnamed()), 0u);
  EXPECT_TRUE(must(check_store(fixture.store(), {})).is_clean());
  for (size_t i = 20; i < rows.size(); i++) must(fixture.chunks().read(rows[i].location));
}

TEST(Unnamed, PackWithNothingLeftIsUnlinkedOnceSealed) {
  TempDir dir;
  leave_unnamed(dir, 2);
  StoreFixture fixture(dir.path());
  const Index::PackRow row = must(fixture.index().list_packs())[0];
  must(fixture.store().evictor().give_back_unnamed());
  EXPECT_TRUE(must(fixture.index().find_pack(row.id)));  // somebody may go on in it
  must(fixture.index().seal_pack(row.id, 0));
  must(fixture.store().evictor().give_back_unnamed());
  EXPECT_FALSE(must(fixture.index().find_pack(row.id)));
  EXPECT_FALSE(path_exists((dir / "packs") + "/" + row.name));
}

TEST(Unnamed, PackWithRecordsStays) {
  TempDir dir;
  leave_unnamed(dir, 2);
  StoreFixture fixture(dir.path());
  const Index::PackRow row = must(fixture.index().list_packs())[0];
  must(fixture.chunks().record_ref(kSource, kRepo, {"main", kCommit, 1}));
  must(fixture.chunks().flush());
  must(fixture.index().seal_pack(row.id, 0));
  must(fixture.store().evictor().give_back_unnamed());
  EXPECT_TRUE(must(fixture.index().find_pack(row.id)));
  EXPECT_TRUE(path_exists((dir / "packs") + "/" + row.name));
}

// What a condemned pack has behind its committed length has no rows, and never will.
TEST(Unnamed, TailOfASealedPackIsCutOff) {
  TempDir dir;
  {
    StoreFixture fixture(dir.path());
    fixture.put(0, 0, random_bytes(1, kMiB));
    must(fixture.chunks().flush());
  }
  StoreFixture fixture(dir.path());
  const Index::PackRow row = must(fixture.index().list_packs())[0];
  must(fixture.index().seal_pack(row.id, 0));
  const File pack = must(File::open((dir / "packs") + "/" + row.name, File::Mode::read_write));
  must(pack.write_at(row.committed_bytes, random_bytes(2, kMiB)));
  must(fixture.store().evictor().give_back_unnamed());
  EXPECT_EQ(must(pack.size()), row.committed_bytes);
}

}  // namespace
}  // namespace cake
