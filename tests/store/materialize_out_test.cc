#include <gtest/gtest.h>

#include <filesystem>

#include "store/check.h"
#include "store/coverage.h"
#include "store/evict.h"
#include "store/materialize.h"
#include "store/remove.h"
#include "store/verify.h"
#include "tests/support/content_fixture.h"
#include "tests/support/names.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

constexpr uint64_t kChunks = 8;

// Two files of 8 chunks, of which the second has its first `shared` from the first.
class MaterializeOutTest : public testing::Test {
 protected:
  void open(uint64_t cache_bytes = 0) {
    store_.reset();
    StoreOptions options = small_store_options(dir_.path());
    options.cache_size = std::nullopt;
    if (cache_bytes > 0) options.cache_size = PercentSize{false, cache_bytes};
    store_ = must(Store::open(options, metrics_));
    must(recover_materialized(*store_));
  }

  void fill(uint64_t shared) {
    {
      StoreFixture fixture(dir_.path());
      const Buffer bytes = random_bytes(1, kChunks * kMiB);
      Buffer other = random_bytes(2, kChunks * kMiB);
      std::copy_n(bytes.begin(), shared * kMiB, other.begin());
      first_ = true_content(fixture.store(), kSource, "first.bin", bytes);
      second_ = true_content(fixture.store(), kSource, "second.bin", other);
      store_bytes(fixture, first_, bytes);
      store_bytes(fixture, second_, other);
      const auto hot = must(Materializer::open(fixture.store()));
      EXPECT_EQ(must(hot->materialize(first_.id, {})), Materializer::Outcome::done);
    }
    open();
  }

  void pin(const ContentRow& content) {
    const RowId repo = must(store_->index().get_repo(kSource, {RepoType::model, "org/name"}));
    must(store_->index().put_pin(repo, content.commit, unix_now()));
  }
  RemovalTarget target(const ContentRow& content) {
    return {kSource, *must(store_->index().find_repo(kSource, content.repo)), content.commit};
  }
  // Of the content, in MiB.
  uint64_t missing(const ContentRow& content) {
    uint64_t sum = 0;
    for (const ByteRange& range : must(missing_ranges(store_->index(), content)))
      sum += range.length;
    return sum / kMiB;
  }
  std::unique_ptr<MaterializedIndex> rows() {
    return must(MaterializedIndex::open(dir_ / "index.db"));
  }
  bool has_raw_file() {
    for (const std::string& name : must(list_directory(dir_ / "packs")))
      if (name.find(".raw") != std::string::npos) return true;
    return false;
  }
  // As a process that was killed when it had moved some chunks out.
  void leave_half_moved() {
    const MaterializedRow row = must(rows()->list())[0];
    const auto digests = must(store_->index().find_digests(first_.id, 0, 1));
    const Location from = *must(store_->index().find_chunks(digests))[0];
    auto pack = must(create_pack(dir_ / "packs", store_->index()));
    PackWriter writer(std::move(pack));
    const ChunkPtr chunk = must(store_->chunks().read(from));
    EntryHeader header;
    header.payload_bytes = header.plain_bytes = from.plain_bytes;
    header.checksum = from.checksum;
    header.digest = digests[0];
    const NewEntry entry{header, chunk->bytes()};
    Location to = from;
    to.offset = must(writer.append({&entry, 1}, PackWriter::Way::through_cache))[0];
    to.pack = writer.id();
    must(store_->index().publish({}, writer.id(), writer.end()));
    const MovedChunk moved{digests[0], from, to};
    must(rows()->move_out({&moved, 1}));
    must(rows()->set_kind(row.pack, PackKind::leaving));
  }

  TempDir dir_;
  Metrics metrics_;
  std::unique_ptr<Store> store_;
  ContentRow first_, second_;
};

// The rows of what two files share point into the whole file of one of them.
TEST_F(MaterializeOutTest, EvictionSparesAFileThatAPinnedOneShares) {
  fill(7);
  pin(second_);
  (void)must(store_->evictor().evict(kGiB));
  EXPECT_EQ(missing(second_), 0u);
  EXPECT_EQ(missing(first_), 0u);
}

TEST_F(MaterializeOutTest, EvictionSparesAFileThatAnOpenOneShares) {
  fill(7);
  const LeaseHold lease(store_->lease(), second_.id);
  (void)must(store_->evictor().evict(kGiB));
  EXPECT_EQ(missing(second_), 0u);
}

TEST_F(MaterializeOutTest, EvictionMovesTheLittleThatAPinnedFileShares) {
  fill(2);
  pin(second_);
  (void)must(store_->evictor().evict(kGiB));
  EXPECT_EQ(missing(second_), 0u);
  EXPECT_EQ(missing(first_), kChunks - 2);
  EXPECT_FALSE(has_raw_file());
}

TEST_F(MaterializeOutTest, PruningSparesWhatThePinnedShare) {
  fill(7);
  pin(second_);
  PruneOptions options;
  options.max_age_s = 1;
  (void)must(prune(*store_, options));
  EXPECT_EQ(missing(second_), 0u);
}

TEST_F(MaterializeOutTest, RemovalKeepsWhatOthersShare) {
  fill(7);
  const RemovalTarget gone = target(first_);
  (void)must(remove_targets(*store_, {&gone, 1}));
  EXPECT_EQ(missing(second_), 0u);
  EXPECT_FALSE(has_raw_file());
}

TEST_F(MaterializeOutTest, RemovalNeedsNoRoomForWhatNobodyShares) {
  fill(0);
  open(kMiB);  // less than there is already
  const RemovalTarget gone = target(first_);
  const Removed removed = must(remove_targets(*store_, {&gone, 1}));
  EXPECT_GE(removed.bytes, kChunks * kMiB);
  EXPECT_FALSE(has_raw_file());
  EXPECT_EQ(missing(second_), 0u);
}

TEST_F(MaterializeOutTest, RemovalFromAFullStoreDropsWhatItCannotMove) {
  fill(7);
  open(kMiB);
  const RemovalTarget gone = target(first_);
  (void)must(remove_targets(*store_, {&gone, 1}));
  EXPECT_FALSE(has_raw_file());
  EXPECT_EQ(missing(second_), 7u);
}

TEST_F(MaterializeOutTest, RemovalFromAFullStoreSparesWhatThePinnedShare) {
  fill(7);
  pin(second_);
  open(kMiB);
  const RemovalTarget gone = target(first_);
  (void)must(remove_targets(*store_, {&gone, 1}));
  EXPECT_EQ(missing(second_), 0u);
  EXPECT_TRUE(has_raw_file());
  // It can go once there is room to move in.
  open();
  const auto hot = must(Materializer::open(*store_));
  EXPECT_TRUE(must(hot->unmaterialize(first_.id)));
  EXPECT_EQ(missing(second_), 0u);
}

TEST_F(MaterializeOutTest, TakesNoMoreRoomThanThereIs) {
  fill(0);
  open(2 * kChunks * kMiB + 4 * kMiB);
  const auto hot = must(Materializer::open(*store_));
  const auto done = hot->unmaterialize(first_.id);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::no_space);
  EXPECT_TRUE(must(hot->open_file(first_)));
}

// A store in which nothing can be written is opened, read and evicted from all the same.
TEST_F(MaterializeOutTest, AKillOnAFullDiskKeepsNobodyOut) {
  fill(0);
  leave_half_moved();
  open(kMiB);
  EXPECT_EQ(missing(first_), 0u);
  EXPECT_FALSE(must(must(Materializer::open(*store_))->open_file(first_)));
  (void)must(store_->evictor().evict(kGiB));
  EXPECT_FALSE(has_raw_file());
  EXPECT_EQ(missing(first_), kChunks);
}

TEST_F(MaterializeOutTest, AFileThatNothingHasLeftBecomesWhatItWas) {
  fill(0);
  must(rows()->set_kind(must(rows()->list())[0].pack, PackKind::leaving));
  open(kMiB);
  EXPECT_TRUE(must(must(Materializer::open(*store_))->open_file(first_)));
}

TEST_F(MaterializeOutTest, GoesInAnewWhatWasOnItsWayOut) {
  fill(0);
  leave_half_moved();
  const auto hot = must(Materializer::connect(*store_));
  EXPECT_EQ(must(hot->materialize(first_.id, {})), Materializer::Outcome::done);
  EXPECT_TRUE(must(hot->open_file(first_)));
  EXPECT_EQ(missing(first_), 0u);
}

// The kernel compares nothing: it would go on reading the bad bytes when they were fetched again.
TEST_F(MaterializeOutTest, AChunkThatProvesWrongEndsPassthrough) {
  for (const bool is_checked : {false, true}) {
    SCOPED_TRACE(is_checked);
    TempDir dir;
    StoreFixture fixture(dir.path());
    const Buffer bytes = random_bytes(1, kChunks * kMiB);
    const ContentRow content = true_content(fixture.store(), kSource, "w.bin", bytes);
    store_bytes(fixture, content, bytes);
    const auto hot = must(Materializer::open(fixture.store()));
    must(hot->materialize(content.id, {}));
    {
      const std::string path = must(hot->open_file(content))->path();
      must(must(File::open(path, File::Mode::read_write)).write_at(2 * kMiB + 17, Buffer(4)));
    }
    CheckOptions options;
    options.repairs = true;
    if (is_checked)
      EXPECT_EQ(must(check_store(fixture.store(), options)).repaired_count, 1u);
    else
      EXPECT_EQ(must(check_content(fixture.store(), content, {})).damaged.size(), 1u);
    EXPECT_FALSE(must(hot->open_file(content)));
    // Good chunks stay, and the bad one is fetched again.
    EXPECT_EQ(must(missing_ranges(fixture.index(), content)),
              (std::vector<ByteRange>{{2 * kMiB, kMiB}}));
    fixture.put(content.id, 2, ByteSpan(bytes).subspan(2 * kMiB, kMiB));
    must(fixture.chunks().flush());
    EXPECT_FALSE(must(must(Materializer::open(fixture.store()))->open_file(content)));
    EXPECT_EQ(must(hot->materialize(content.id, {})), Materializer::Outcome::done);
    const std::optional<File> file = must(hot->open_file(content));
    ASSERT_TRUE(file);
    Buffer got(bytes.size());
    must(file->read_exactly_at(0, got));
    EXPECT_EQ(got, bytes);
  }
}

// What is met while the file is taken out, which then fails.
TEST_F(MaterializeOutTest, ABadChunkIsNotForgottenForLackOfRoom) {
  fill(0);
  {
    const std::string path = must(must(Materializer::open(*store_))->open_file(first_))->path();
    must(must(File::open(path, File::Mode::read_write)).write_at(17, Buffer(4)));
  }
  open(kMiB);
  const auto hot = must(Materializer::connect(*store_));
  EXPECT_FALSE(hot->unmaterialize(first_.id));
  EXPECT_EQ(missing(first_), 1u);
  EXPECT_FALSE(must(hot->open_file(first_)));
  // A reader may find it at any moment, also while nobody has moved anything.
  const uint32_t pack = must(rows()->list())[0].pack;
  must(rows()->stay(pack, PackKind::materialized,
                    must(store_->index().find_digests(first_.id, 0, 8))));
  must(rows()->arrived(pack));
  EXPECT_FALSE(must(hot->open_file(first_)));
}

// Where whole files do not go, chunks do.
TEST_F(MaterializeOutTest, EvictionAtTheLimitGoesOn) {
  fill(2);
  pin(second_);
  const uint64_t used = must(store_->disk_bytes());
  {
    StoreFixture fixture(dir_.path());
    const Buffer bytes = random_bytes(3, kChunks * kMiB);
    store_bytes(fixture, true_content(fixture.store(), kSource, "third.bin", bytes), bytes);
  }
  open(used);
  EXPECT_GE(must(store_->evictor().evict(8 * kMiB)).bytes, 8 * kMiB);
  EXPECT_EQ(missing(second_), 0u);
}

TEST_F(MaterializeOutTest, EvictionGoesOnBesideAMaterialization) {
  fill(0);
  const File turn = must(File::open(dir_ / "materialize.lock", File::Mode::create));
  ASSERT_TRUE(must(turn.try_lock({}, true)));
  uint64_t bytes = 0;
  for (int i = 0; i < 4; i++) bytes += must(store_->evictor().evict(2 * kMiB)).bytes;
  EXPECT_GE(bytes, 8 * kMiB);
  EXPECT_EQ(missing(first_), 0u);
  EXPECT_EQ(missing(second_), kChunks);
}

// The whole proved wrong: nobody knows which chunk it was, so all stay for those who share them.
TEST_F(MaterializeOutTest, ARejectedFileIsNotReadAndSparesWhatOthersShare) {
  fill(4);
  pin(second_);
  must(reject_content(*store_, first_));
  EXPECT_FALSE(must(must(Materializer::connect(*store_))->open_file(first_)));
  open();
  (void)must(store_->evictor().evict(kGiB));
  EXPECT_EQ(missing(second_), 0u);
  EXPECT_TRUE(has_raw_file());
}

TEST_F(MaterializeOutTest, ARejectedFileGoesWhenNobodyNeedsIt) {
  fill(0);
  must(reject_content(*store_, first_));
  open();
  EXPECT_TRUE(has_raw_file());
  (void)must(store_->evictor().evict(kGiB));
  EXPECT_FALSE(has_raw_file());
  EXPECT_EQ(must(rows()->list()).size(), 0u);
}

// Descriptors of files that are unlinked: their blocks are not free.
size_t removed_files_open() {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const std::string target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (target.ends_with(".raw (deleted)")) count++;
  }
  return count;
}

TEST_F(MaterializeOutTest, AnEvictedFileIsNotKeptOpen) {
  fill(0);
  const auto digests = must(store_->index().find_digests(first_.id, 0, 1));
  const Location at = *must(store_->index().find_chunks(digests))[0];
  StoreFixture other(dir_.path());
  must(store_->chunks().read(at));
  must(other.chunks().read(at));
  (void)must(store_->evictor().evict(kGiB));
  EXPECT_FALSE(has_raw_file());
  EXPECT_EQ(removed_files_open(), 2u);  // the other's: one through the page cache, one past it
  // As the other process's upkeep does every few seconds.
  other.chunks().close_removed();
  EXPECT_EQ(removed_files_open(), 0u);
}

// A recipe that does not parse is the file's own trouble.
TEST_F(MaterializeOutTest, ADamagedRecipeKeepsNobodyOut) {
  fill(0);
  must(rows()->set_kind(must(rows()->list())[0].pack, PackKind::leaving));
  must(store_->index().drop_recipe(first_.id));
  must(store_->index().put_recipe(first_.id, {Cutter::safetensors, Buffer(3)}));
  open();
  (void)must(store_->evictor().evict(kGiB));
  EXPECT_EQ(missing(second_), kChunks);
}

TEST_F(MaterializeOutTest, ADamagedRecipeKeepsNoRemovalFromGoingOn) {
  fill(0);
  must(store_->index().drop_recipe(first_.id));
  must(store_->index().put_recipe(first_.id, {Cutter::safetensors, Buffer(3)}));
  const RemovalTarget all[] = {target(first_), target(second_)};
  (void)must(remove_targets(*store_, all));
  EXPECT_EQ(missing(second_), kChunks);
}

}  // namespace
}  // namespace cake
