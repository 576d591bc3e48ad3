#include "store/evict.h"

#include <gtest/gtest.h>

#include "store/check.h"
#include "store/index_upkeep.h"
#include "store/pack.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

StoreOptions limited(const std::string& directory, uint64_t cache_bytes) {
  StoreOptions options;
  options.directory = directory;
  options.codec = CodecChoice::raw;
  options.threads = 2;
  options.cache_size = PercentSize{false, cache_bytes};
  return options;
}

// A store of `cache_bytes`, and chunks in it.
class EvictorTest : public testing::Test {
 protected:
  void open(uint64_t cache_bytes) {
    store_.reset();
    store_ = must(Store::open(limited(dir_.path(), cache_bytes), metrics_));
  }

  RowId content(const std::string& path) {
    const RowId repo = must(store_->index().get_repo(kSource, kRepo));
    TreeEntry entry;
    entry.path = path;
    entry.bytes = kGiB;
    entry.ids.sha256 = blake3(as_bytes(path)).hex();
    const std::string commit = blake3(as_bytes("commit" + path)).hex().substr(0, 40);
    return must(store_->index().put_snapshot(repo, commit, 1'700'000'000, {entry}))->content_id(0);
  }

  // Puts `count` chunks of 1 MiB one after the other, waiting for each, as a reader's pace does.
  void put(RowId content, uint64_t first, uint64_t count, uint64_t size = kMiB) {
    for (uint64_t i = first; i < first + count; i++) {
      PutRequest request;
      request.content = content;
      request.ordinal = i;
      const Buffer bytes = random_bytes(content * 1'000'000 + i, size);
      auto buffer = store_->buffers().allocate(bytes.size());
      std::memcpy(buffer->bytes().data(), bytes.data(), bytes.size());
      request.plain = buffer;
      store_->chunks().put(std::move(request));
      if (i % 8 == 7) must(store_->chunks().flush());
    }
    must(store_->chunks().flush());
  }

  // How many of these extents have a chunk.
  uint64_t present(RowId content, uint64_t count) {
    uint64_t found = 0;
    const auto digests = must(store_->index().find_digests(content, 0, count));
    const auto locations = must(store_->index().find_chunks(digests));
    for (const auto& location : locations)
      if (location) found++;
    return found;
  }

  uint64_t counter(const std::string& name) { return metrics_.values()[name]; }

  TempDir dir_;
  Metrics metrics_;
  std::unique_ptr<Store> store_;
};

TEST_F(EvictorTest, KeepsTheStoreInItsLimit) {
  constexpr uint64_t kLimit = 48 * kMiB;
  open(kLimit);
  const RowId big = content("big");
  for (uint64_t i = 0; i < 160; i += 16) {
    put(big, i, 16);
    EXPECT_LE(must(store_->disk_bytes()), kLimit + kLimit / 100);
  }
  EXPECT_EQ(counter("store.chunks_unstored"), 0u);
  EXPECT_GT(counter("store.chunks_evicted"), 100u);
  EXPECT_GE(present(big, 160), 30u);
  EXPECT_LE(present(big, 160), kLimit / kMiB);
  // Which ones went depends on the clock, whose seconds are the order; all their digests stay.
  for (const Digest& digest : must(store_->index().find_digests(big, 0, 160)))
    EXPECT_FALSE(digest.is_zero());
}

TEST_F(EvictorTest, GivesBackWhatItTookAndDidNotUse) {
  open(4 * kGiB);
  const RowId big = content("big");
  put(big, 0, 1);
  const std::string path = dir_.path() + "/packs/" + must(store_->index().list_packs())[0].name;
  EXPECT_GE(must(path_disk_bytes(path)), 2 * kMiB);  // a first step
  store_.reset();
  EXPECT_LT(must(path_disk_bytes(path)), 2 * kMiB);
}

TEST_F(EvictorTest, SparesTheLeasedAndThePinnedAndWhatTheyShare) {
  constexpr uint64_t kLimit = 48 * kMiB;
  open(kLimit);
  const RowId leased = content("leased"), pinned = content("pinned"), sharer = content("sharer"),
              big = content("big");
  put(leased, 0, 8);
  put(pinned, 0, 8);
  // An equal chunk under another content, which nobody protects.
  const Digest shared = must(store_->index().find_digests(pinned, 3, 1))[0];
  const PublishedExtent extent{sharer, 0, shared, std::nullopt, kMiB};
  must(store_->index().publish(std::span(&extent, 1), 0, 0));
  const LeaseHold lease(store_->lease(), leased);
  const RowId repo = must(store_->index().get_repo(kSource, kRepo));
  const std::string commit = blake3(as_bytes("commitpinned")).hex().substr(0, 40);
  must(store_->index().put_pin(repo, commit, 1));
  put(big, 0, 120);
  EXPECT_EQ(present(leased, 8), 8u);
  EXPECT_EQ(present(pinned, 8), 8u);
  EXPECT_EQ(present(sharer, 1), 1u);
  EXPECT_LT(present(big, 120), 40u);
}

TEST_F(EvictorTest, FollowsThePinnedRevision) {
  open(kGiB);
  const RowId old_content = content("old"), new_content = content("new");
  const RowId repo = must(store_->index().get_repo(kSource, kRepo));
  must(store_->index().put_pin(repo, "main", 1));
  must(store_->index().put_ref(repo,
                               {"main", blake3(as_bytes("commitold")).hex().substr(0, 40), 1}));
  EXPECT_EQ(must(store_->upkeep().pinned_contents()), std::vector<RowId>{old_content});
  must(store_->index().put_ref(repo,
                               {"main", blake3(as_bytes("commitnew")).hex().substr(0, 40), 2}));
  EXPECT_EQ(must(store_->upkeep().pinned_contents()), std::vector<RowId>{new_content});
}

TEST_F(EvictorTest, RefusesToStoreWhenAllIsInUse) {
  constexpr uint64_t kLimit = 32 * kMiB;
  open(kLimit);
  const RowId leased = content("leased");
  const LeaseHold lease(store_->lease(), leased);
  put(leased, 0, 64);
  EXPECT_LE(must(store_->disk_bytes()), kLimit + kLimit / 100);
  EXPECT_GT(counter("store.chunks_unstored"), 20u);
  EXPECT_GE(present(leased, 64), 24u);
  EXPECT_EQ(counter("store.chunks_evicted"), 0u);
}

TEST_F(EvictorTest, ShrinksAStoreWhoseLimitWasLowered) {
  open(256 * kMiB);
  const RowId big = content("big");
  put(big, 0, 96);
  open(32 * kMiB);
  put(big, 96, 1);
  EXPECT_LE(must(store_->disk_bytes()), 33 * kMiB);
  EXPECT_EQ(counter("store.chunks_unstored"), 0u);
}

TEST_F(EvictorTest, GivesBackTheSpaceOfSmallNeighbours) {
  open(kGiB);
  const RowId experts = content("experts");
  put(experts, 0, 2000, 5000);
  const uint64_t before = must(store_->disk_bytes());
  must(store_->evictor().evict(kGiB));
  EXPECT_EQ(present(experts, 2000), 0u);
  // 10 MB went; what stays is blocks that groups of entries share, and the index.
  EXPECT_LE(must(store_->disk_bytes()) + 8 * kMiB, before);
}

// Before a big entry, which begins a block, lies what shares the block of the one before.
TEST_F(EvictorTest, SparesWhatLiesBetweenWhatGoes) {
  open(kGiB);
  const RowId file = content("file");
  // The second begins a block, the third shares it (or the other way round: threads store them),
  // the fourth begins another.
  put(file, 0, 1);
  put(file, 1, 2, 1000);
  put(file, 3, 1);
  auto digests = must(store_->index().find_digests(file, 0, 4));
  auto locations = must(store_->index().find_chunks(digests));
  if (locations[1]->offset > locations[2]->offset) {
    std::swap(digests[1], digests[2]);
    std::swap(locations[1], locations[2]);
  }
  ASSERT_EQ((locations[1]->offset - kEntryHeaderBytes) % kBigAlignment, 0u);
  ASSERT_EQ(align_up(locations[2]->offset, kBigAlignment),
            locations[3]->offset - kEntryHeaderBytes);
  std::vector<ChunkRow> rows;
  must(store_->upkeep().each_chunk([&](const ChunkRow& row) -> Status {
    if (row.digest == digests[1] || row.digest == digests[3]) rows.push_back(row);
    return {};
  }));
  Reclaimer& reclaimer = store_->evictor().reclaimer();
  EXPECT_EQ(must(reclaimer.remove(rows, must(reclaimer.kept()), false)).chunks, 2u);
  EXPECT_EQ(present(file, 4), 2u);
  must(store_->chunks().read(*locations[2]));
  EXPECT_TRUE(must(check_store(*store_, {})).is_clean());
}

TEST_F(EvictorTest, ProvesWhatIsReadAgainAndWhatComesBack) {
  open(kGiB);
  const RowId file = content("file");
  put(file, 0, 2);
  const auto digests = must(store_->index().find_digests(file, 0, 2));
  const auto uses = [&](const Digest& digest) {
    unsigned found = 99;
    must(store_->upkeep().each_chunk([&](const ChunkRow& row) -> Status {
      if (row.digest == digest) found = row.uses;
      return {};
    }));
    return found;
  };
  const int64_t now = unix_now();
  // At once is the same reading; a minute later it is another.
  must(store_->upkeep().touch_chunks(std::span(&digests[0], 1), now + 5));
  EXPECT_EQ(uses(digests[0]), 0u);
  must(store_->upkeep().touch_chunks(std::span(&digests[0], 1), now + 90));
  EXPECT_EQ(uses(digests[0]), 1u);
  must(store_->evictor().evict(kGiB));
  EXPECT_EQ(present(file, 2), 0u);
  put(file, 1, 1);
  EXPECT_EQ(uses(digests[1]), 1u);
}

TEST_F(EvictorTest, RestoresWhatIsOpenedWhileItGoes) {
  open(kGiB);
  const RowId file = content("file");
  put(file, 0, 4);
  std::vector<ChunkRow> rows;
  must(store_->upkeep().each_chunk([&](const ChunkRow& row) -> Status {
    rows.push_back(row);
    return {};
  }));
  const Reclaimer::Kept before = must(store_->evictor().reclaimer().kept());
  const LeaseHold lease(store_->lease(), file);  // between the look and the removal
  EXPECT_EQ(must(store_->evictor().reclaimer().remove(rows, before, true)).chunks, 0u);
  EXPECT_EQ(present(file, 4), 4u);
  for (const ChunkRow& row : rows) must(store_->chunks().read(row.location));
}

TEST_F(EvictorTest, WritesDownWhatWasRead) {
  open(kGiB);
  const RowId file = content("file");
  store_->accesses().note_content(file);
  must(store_->evictor().write_accesses());
  EXPECT_GE(must(store_->index().find_content(file))->last_access, unix_now() - 60);
}

}  // namespace
}  // namespace cake
