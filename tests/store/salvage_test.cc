#include "store/salvage.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>

#include "store/coverage.h"
#include "store/index_upkeep.h"
#include "store/recipe.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

Location place_of(StoreFixture& fixture, const Digest& digest) {
  return must(fixture.index().find_chunks(std::span(&digest, 1)))[0].value();
}

std::vector<std::string> packs_in(const std::string& store) {
  std::vector<std::string> paths;
  for (const std::string& name : must(list_directory(store + "/packs")))
    if (name.ends_with(".pack")) paths.push_back(store + "/packs/" + name);
  return paths;
}

void lose_index(const TempDir& dir) {
  for (const char* suffix : {"", "-wal", "-shm"})
    std::filesystem::remove(cat(dir.path(), "/index.db", suffix));
}

// The row of a chunk went bad, the chunk was stored again and flushed, and a power loss brought the
// old row back.
TEST(Salvage, PrefersWhatItHasReadToARowThatIsFalse) {
  TempDir dir, lost;
  const Buffer bytes = random_bytes(7, kMiB);
  const Digest digest = blake3(bytes);
  Location bad;
  {
    StoreFixture fixture(dir.path());
    fixture.put(0, 0, bytes);
    must(fixture.chunks().flush());
    bad = place_of(fixture, digest);
  }
  const std::string pack = packs_in(dir.path())[0];
  must(must(File::open(pack, File::Mode::read_write)).write_at(bad.offset + 500, Buffer(1)));
  constexpr auto kAll =
      std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing;
  std::filesystem::copy(dir.path(), lost.path(), kAll);  // with the index as it was
  {
    StoreFixture fixture(dir.path());
    must(fixture.index().drop_chunk(digest, bad));
    fixture.put(0, 0, bytes);
    must(fixture.chunks().flush());
  }
  std::filesystem::copy(dir / "packs", lost / "packs", kAll);
  StoreFixture fixture(lost.path());
  EXPECT_NE(place_of(fixture, digest), bad);
  EXPECT_EQ(fixture.find(digest), bytes);
}

// The names of what is in one pack are in another, which somebody else has.
TEST(Salvage, LeavesWhatOnlyAnotherPackCanNameForLater) {
  TempDir dir;
  const Buffer bytes = random_bytes(7, 4 * kMiB);
  {
    StoreFixture one(dir.path()), other(dir.path());
    const RowId repo = must(one.index().get_repo(kSource, kRepo));
    TreeEntry entry{"x", bytes.size(), {}};
    entry.ids.sha256 = file_hash_hex(FileHash::sha256, bytes);
    const auto snapshot = must(one.index().put_snapshot(repo, kCommit, 1, {entry}));
    must(one.chunks().record_snapshot(kSource, *snapshot));
    const RowId content = snapshot->content_id(0);
    must(begin_recipe(one.store(), must(one.index().find_content(content)).value(),
                      cut_file(Cutter::uniform, {}, bytes.size()), {}));
    for (uint64_t i = 0; i < 4; i++) {
      StoreFixture& fixture = i < 2 ? one : other;
      fixture.put(content, i, ByteSpan(bytes).subspan(i * kMiB, kMiB));
      must(fixture.chunks().flush());
    }
  }
  lose_index(dir);
  ASSERT_EQ(packs_in(dir.path()).size(), 2u);
  {
    const File named = must(File::open(packs_in(dir.path())[0], File::Mode::read_write));
    ASSERT_TRUE(must(named.try_lock({}, true)));
    StoreFixture early(dir.path());
    EXPECT_EQ(must(early.index().usage()).chunks, 0u);
    // A writer leaves it, too.
    early.put(0, 0, random_bytes(9, kMiB));
    must(early.chunks().flush());
  }
  StoreFixture fixture(dir.path());
  const auto repo = must(fixture.index().find_repo(kSource, kRepo)).value();
  const RowId content = must(fixture.index().find_snapshot(repo.id, kCommit))->content_id(0);
  EXPECT_TRUE(
      must(missing_ranges(fixture.index(), must(fixture.index().find_content(content)).value()))
          .empty());
}

TEST(Salvage, NeedsOneDescriptorForAllPacks) {
  TempDir dir;
  constexpr uint64_t kPacks = 60;
  {
    MemoryBudget budget(64 * kMiB);
    BufferPool buffers(budget);
    Metrics metrics;
    ThreadPool pool("test", 2);
    must(make_directories(dir / "packs"));
    auto index = must(Index::open(dir / "index.db"));
    auto chunks = must(
        ChunkStore::open(dir.path(), *index, buffers, pool, CodecChoice::raw, metrics, 64 * kKiB));
    for (uint64_t i = 0; i < kPacks; i++) {
      const Buffer bytes = random_bytes(i, 100'000);
      auto plain = buffers.allocate(bytes.size());
      std::memcpy(plain->bytes().data(), bytes.data(), bytes.size());
      PutRequest request;
      request.plain = plain;
      chunks->put(std::move(request));
      must(chunks->flush());
    }
  }
  lose_index(dir);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  size_t open = must(list_directory("/proc/self/fd")).size();
  const rlimit few{open + 40, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  uint64_t chunks = 0;
  {
    StoreFixture fixture(dir.path());
    chunks = must(fixture.index().usage()).chunks;
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(chunks, kPacks);
}

TEST(Salvage, RemovesAPackThatWasBeingMade) {
  TempDir dir;
  StoreFixture(dir.path());
  const std::string path = (dir / "packs") + "/00000001-0123456789abcdef.pack.new";
  must(must(File::open(path, File::Mode::create)).write_at(0, Buffer(64)));
  {
    const File maker = must(File::open(path, File::Mode::read_write));
    ASSERT_TRUE(must(maker.try_lock({}, true)));
    StoreFixture other(dir.path());
    EXPECT_TRUE(path_exists(path));
  }
  StoreFixture fixture(dir.path());
  EXPECT_FALSE(path_exists(path));
}

}  // namespace
}  // namespace cake
