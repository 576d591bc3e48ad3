#include "store/materialize.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>

#include "store/base/digest.h"
#include "store/recipe.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

constexpr uint64_t kFileBytes = 40 * kMiB + 123;

// Random but for two equal chunks, so that one file needs a chunk twice.
Buffer file_bytes() {
  Buffer bytes = random_bytes(7, kFileBytes);
  std::copy_n(bytes.begin(), kMiB, bytes.begin() + 5 * kMiB);
  return bytes;
}

RowId add_content(StoreFixture& fixture, const std::string& sha256) {
  const RowId repo =
      must(fixture.index().get_repo("hf:https://hub.test", {RepoType::model, "org/name"}));
  TreeEntry entry;
  entry.path = "w.bin";
  entry.bytes = kFileBytes;
  entry.ids.sha256 = sha256;
  const auto snapshot =
      must(fixture.index().put_snapshot(repo, std::string(40, 'a'), 1'700'000'000, {entry}));
  must(fixture.chunks().record_snapshot("hf:https://hub.test", *snapshot));
  return snapshot->content_id(0);
}

// A content whose extents up to `count` are stored.
RowId fill(StoreFixture& fixture, const Buffer& bytes, uint64_t count = UINT64_MAX,
           std::string sha256 = "") {
  if (sha256.empty()) sha256 = file_hash_hex(FileHash::sha256, bytes);
  const RowId content = add_content(fixture, sha256);
  const ContentRow row = must(fixture.index().find_content(content)).value();
  const Cut cut = cut_file(Cutter::uniform, {}, bytes.size());
  must(begin_recipe(fixture.store(), row, cut, {}));
  for (uint64_t i = 0; i < std::min<uint64_t>(count, cut.extents.count()); i++) {
    const Extent extent = cut.extents.at(i);
    fixture.put(content, i, ByteSpan(bytes).subspan(extent.offset, extent.length));
  }
  must(fixture.chunks().flush());
  return content;
}

// The file as the chunk rows give it; nullopt when a chunk has none.
std::optional<Buffer> read_all(StoreFixture& fixture, RowId content) {
  const Cut cut = cut_file(Cutter::uniform, {}, kFileBytes);
  Buffer all;
  for (const Digest& digest : must(fixture.index().find_digests(content, 0, cut.extents.count()))) {
    const std::optional<Buffer> chunk = fixture.find(digest);
    if (!chunk) return std::nullopt;
    all.insert(all.end(), chunk->begin(), chunk->end());
  }
  return all;
}

Buffer read_file(const File& file) {
  Buffer bytes(must(file.size()));
  must(file.read_exactly_at(0, bytes));
  return bytes;
}

// Blocks of ordinary packs.
uint64_t pack_blocks(const TempDir& dir) {
  uint64_t sum = 0;
  for (const std::string& name : must(list_directory(dir / "packs")))
    if (name.ends_with(".pack"))
      sum += must(must(File::open((dir / "packs") + "/" + name, File::Mode::read)).disk_bytes());
  return sum;
}

size_t raw_files(const TempDir& dir) {
  const auto names = must(list_directory(dir / "packs"));
  return static_cast<size_t>(std::count_if(names.begin(), names.end(), [](const auto& name) {
    return name.find(".raw") != std::string::npos;
  }));
}

ContentRow row_of(StoreFixture& fixture, RowId content) {
  return must(fixture.index().find_content(content)).value();
}

TEST(Materializer, KeepsEveryByteAndNoSecondCopy) {
  for (const CodecChoice codec : {CodecChoice::raw, CodecChoice::zstd}) {
    TempDir dir;
    StoreFixture fixture(dir.path(), codec);
    const Buffer bytes = file_bytes();
    const RowId content = fill(fixture, bytes);
    const auto hot = must(Materializer::open(fixture.store()));
    EXPECT_FALSE(must(hot->open_file(row_of(fixture, content))));
    EXPECT_EQ(must(hot->materialize(content, {})), Materializer::Outcome::done);
    const std::optional<File> file = must(hot->open_file(row_of(fixture, content)));
    ASSERT_TRUE(file);
    EXPECT_EQ(read_file(*file), bytes);
    EXPECT_EQ(read_all(fixture, content), bytes);
    EXPECT_LT(pack_blocks(dir), kMiB);
    EXPECT_TRUE(row_of(fixture, content).verified);
    EXPECT_EQ(must(hot->materialize(content, {})), Materializer::Outcome::already);
    ASSERT_EQ(must(hot->list()).size(), 1u);
    EXPECT_EQ(must(hot->list())[0].content, content);
  }
}

TEST(Materializer, NeedsTheWholeFile) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId content = fill(fixture, file_bytes(), 40);
  const auto hot = must(Materializer::open(fixture.store()));
  EXPECT_EQ(must(hot->materialize(content, {})), Materializer::Outcome::incomplete);
  EXPECT_EQ(raw_files(dir), 0u);
}

TEST(Materializer, RefusesBytesThatAreNotTheHubs) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = file_bytes();
  const RowId content = fill(fixture, bytes, UINT64_MAX, std::string(64, '0'));
  const auto hot = must(Materializer::open(fixture.store()));
  const auto outcome = hot->materialize(content, {});
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, Errc::corrupt);
  EXPECT_EQ(raw_files(dir), 0u);
  EXPECT_EQ(read_all(fixture, content), bytes);
}

TEST(Materializer, LeavesTheDiskItsFreeSpace) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId content = fill(fixture, file_bytes());
  const auto hot = must(Materializer::open(fixture.store()));
  MaterializeOptions options;
  options.min_free_bytes = must(disk_space(dir.path())).total_bytes;
  const auto outcome = hot->materialize(content, options);
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, Errc::no_space);
}

TEST(Materializer, StopsWhenAskedTo) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId content = fill(fixture, file_bytes());
  const auto hot = must(Materializer::open(fixture.store()));
  MaterializeOptions options;
  int asked = 0;
  options.should_stop = [&] { return ++asked > 20; };
  EXPECT_EQ(must(hot->materialize(content, options)), Materializer::Outcome::stopped);
  EXPECT_EQ(raw_files(dir), 0u);
}

TEST(Materializer, GoesBackIntoPacks) {
  TempDir dir;
  StoreFixture fixture(dir.path(), CodecChoice::zstd);
  const Buffer bytes = file_bytes();
  const RowId content = fill(fixture, bytes);
  const auto hot = must(Materializer::open(fixture.store()));
  must(hot->materialize(content, {}));
  EXPECT_TRUE(must(hot->unmaterialize(content)));
  EXPECT_FALSE(must(hot->unmaterialize(content)));
  EXPECT_EQ(raw_files(dir), 0u);
  EXPECT_EQ(read_all(fixture, content), bytes);
  EXPECT_FALSE(must(hot->open_file(row_of(fixture, content))));
  // And once more in, from there.
  EXPECT_EQ(must(hot->materialize(content, {})), Materializer::Outcome::done);
  EXPECT_EQ(read_all(fixture, content), bytes);
}

TEST(Materializer, StaysWhileItIsInUse) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = file_bytes();
  const RowId content = fill(fixture, bytes);
  const auto hot = must(Materializer::open(fixture.store()));
  must(hot->materialize(content, {}));
  {
    const std::optional<File> file = must(hot->open_file(row_of(fixture, content)));
    EXPECT_FALSE(must(hot->unmaterialize(content)));
    EXPECT_EQ(must(hot->evict(content)), 0u);
    EXPECT_EQ(read_file(*file), bytes);
  }
  EXPECT_EQ(must(hot->evict(content)), kFileBytes);
  EXPECT_EQ(raw_files(dir), 0u);
  EXPECT_EQ(read_all(fixture, content), std::nullopt);
}

// Passthrough checks nothing, so a hole would be read as zeros.
TEST(Materializer, IsNotOpenedWithAHole) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId content = fill(fixture, file_bytes());
  const auto hot = must(Materializer::open(fixture.store()));
  must(hot->materialize(content, {}));
  const std::string path = must(hot->open_file(row_of(fixture, content)))->path();
  must(must(File::open(path, File::Mode::read_write)).punch_hole({8 * kMiB, 64 * kKiB}));
  const auto opened = hot->open_file(row_of(fixture, content));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, Errc::corrupt);
}

TEST(Materializer, GivesWayWhenThereIsNoRoom) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId content = fill(fixture, file_bytes());
  const auto hot = must(Materializer::open(fixture.store()));
  must(hot->materialize(content, {}));
  EXPECT_EQ(must(hot->relieve(kMiB, std::span(&content, 1))), 0u);
  EXPECT_EQ(must(hot->relieve(kMiB, {})), kFileBytes);
  EXPECT_TRUE(must(hot->list()).empty());
}

TEST(Materializer, IsFoundAgainWhenTheIndexIsLost) {
  TempDir dir;
  const Buffer bytes = file_bytes();
  {
    StoreFixture fixture(dir.path());
    const RowId content = fill(fixture, bytes);
    must(must(Materializer::open(fixture.store()))->materialize(content, {}));
  }
  for (const std::string suffix : {"", "-wal", "-shm"})
    std::filesystem::remove((dir / "index.db") + suffix);
  StoreFixture fixture(dir.path());
  must(recover_materialized(fixture.store()));
  const RowId content = add_content(fixture, file_hash_hex(FileHash::sha256, bytes));
  EXPECT_EQ(read_all(fixture, content), bytes);
  const auto hot = must(Materializer::open(fixture.store()));
  EXPECT_TRUE(must(hot->is_materialized(row_of(fixture, content))));
}

TEST(Materializer, DoesNotTakeADamagedFileBack) {
  TempDir dir;
  const Buffer bytes = file_bytes();
  {
    StoreFixture fixture(dir.path());
    const RowId content = fill(fixture, bytes);
    const auto hot = must(Materializer::open(fixture.store()));
    must(hot->materialize(content, {}));
    const std::string path = must(hot->open_file(row_of(fixture, content)))->path();
    must(must(File::open(path, File::Mode::read_write)).write_at(kMiB, Buffer(1)));
  }
  for (const std::string suffix : {"", "-wal", "-shm"})
    std::filesystem::remove((dir / "index.db") + suffix);
  StoreFixture fixture(dir.path());
  must(recover_materialized(fixture.store()));
  EXPECT_EQ(raw_files(dir), 0u);
}

// --- Kills ---

// What the child does in CAKE_TEST_STORE; it is killed on its way (CAKE_FAULT).
TEST(Materializer, DISABLED_ChildGoesInAndOut) {
  StoreFixture fixture(std::getenv("CAKE_TEST_STORE"));
  const RowId content = must(fixture.index().find_content(1)).value().id;
  const auto hot = must(Materializer::open(fixture.store()));
  must(hot->materialize(content, {}));
  if (std::getenv("CAKE_TEST_EVICTS") != nullptr)
    must(hot->evict(content));
  else
    must(hot->unmaterialize(content));
}

TEST(Materializer, SurvivesAKillAtEveryStep) {
  const Buffer bytes = file_bytes();
  for (const std::string point :
       {"materialize.written", "materialize.renamed", "materialize.added", "materialize.moved",
        "materialize.moved:2", "materialize.punched", "materialize.leaving", "unmaterialize.synced",
        "unmaterialize.moved", "unmaterialize.moved:2", "unmaterialize.removed"}) {
    SCOPED_TRACE(point);
    TempDir dir;
    {
      StoreFixture fixture(dir.path());
      ASSERT_EQ(fill(fixture, bytes), 1u);
    }
    const int status =
        run_self("Materializer.DISABLED_ChildGoesInAndOut",
                 {{"CAKE_TEST_STORE", dir.path()},
                  {"CAKE_FAULT", point.find(':') == std::string::npos ? point + ":1" : point}});
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    StoreFixture fixture(dir.path());
    const auto hot = must(Materializer::open(fixture.store()));
    EXPECT_EQ(read_all(fixture, 1), bytes);
    // It is one or the other, and can be used and changed again.
    const std::optional<File> file = must(hot->open_file(row_of(fixture, 1)));
    EXPECT_EQ(raw_files(dir), file ? 1u : 0u);
    if (file) {
      EXPECT_EQ(read_file(*file), bytes);
    }
    const auto again = must(hot->materialize(1, {}));
    EXPECT_EQ(again, file ? Materializer::Outcome::already : Materializer::Outcome::done);
    EXPECT_EQ(read_all(fixture, 1), bytes);
  }
}

TEST(Materializer, AKillWhileEvictingLosesTheFileAsAWhole) {
  const Buffer bytes = file_bytes();
  TempDir dir;
  {
    StoreFixture fixture(dir.path());
    ASSERT_EQ(fill(fixture, bytes), 1u);
  }
  const int status = run_self("Materializer.DISABLED_ChildGoesInAndOut",
                              {{"CAKE_TEST_STORE", dir.path()},
                               {"CAKE_TEST_EVICTS", "1"},
                               {"CAKE_FAULT", "materialize.dropped:1"}});
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  StoreFixture fixture(dir.path());
  const auto hot = must(Materializer::open(fixture.store()));
  EXPECT_EQ(raw_files(dir), 0u);
  EXPECT_EQ(read_all(fixture, 1), std::nullopt);
}

}  // namespace
}  // namespace cake
