#include "store/chunk_store.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "store/base/file.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

uint64_t pack_bytes(const TempDir& dir) {
  uint64_t sum = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir / "packs"))
    sum += file.file_size();
  return sum;
}

std::string only_pack(const TempDir& dir) {
  const auto names = must(list_directory(dir / "packs"));
  EXPECT_EQ(names.size(), 1u);
  return (dir / "packs") + "/" + names.at(0);
}

Location location_of(StoreFixture& fixture, const Digest& digest) {
  return must(fixture.index().find_chunks(std::span(&digest, 1)))[0].value();
}

void flip_byte(const std::string& path, uint64_t offset) {
  const File file = must(File::open(path, File::Mode::read_write));
  Buffer byte(1);
  must(file.read_exactly_at(offset, byte));
  byte[0] ^= std::byte{1};
  must(file.write_at(offset, byte));
}

TEST(ChunkStore, ReadsBackWhatWasPut) {
  for (const CodecChoice codec : {CodecChoice::raw, CodecChoice::zstd, CodecChoice::automatic}) {
    TempDir dir;
    StoreFixture fixture(dir.path(), codec);
    const RowId content = fixture.content("a.bin", 3 * kMiB);
    const std::vector<Buffer> chunks = {random_bytes(1, kMiB), Buffer(kMiB), random_bytes(2, 1)};
    for (size_t i = 0; i < chunks.size(); i++) fixture.put(content, i, chunks[i]);
    must(fixture.chunks().flush());
    EXPECT_EQ(fixture.chunks().queued_bytes(), 0u);
    const auto digests = must(fixture.index().find_digests(content, 0, 3));
    for (size_t i = 0; i < chunks.size(); i++) {
      EXPECT_EQ(digests[i], blake3(chunks[i]));
      EXPECT_EQ(fixture.find(digests[i]), chunks[i]);
    }
  }
}

TEST(ChunkStore, CanBeReadBeforeItIsPublished) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  Mutex mutex;
  CondVar wake;
  std::optional<Location> where;
  const Buffer bytes = random_bytes(1, kMiB);
  fixture.put(0, 0, bytes, [&](const Digest&, Result<Location> location) {
    MutexLock lock(mutex);
    where = must(std::move(location));
    wake.notify_one();
  });
  MutexLock lock(mutex);
  while (!where) wake.wait(mutex);
  EXPECT_EQ(to_buffer(must(fixture.chunks().read(*where))->bytes()), bytes);
}

TEST(ChunkStore, PublishesWithoutBeingAsked) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(1, 1000);
  fixture.put(0, 0, bytes);
  const Digest digest = blake3(bytes);
  const SteadyTime until = steady_now() + std::chrono::seconds(30);
  while (!fixture.find(digest) && steady_now() < until) std::this_thread::yield();
  EXPECT_EQ(fixture.find(digest), bytes);
}

TEST(ChunkStore, EqualChunksOfOtherContentsCostNoPackBytes) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId a = fixture.content("a.bin", 20 * kMiB);
  const RowId b = fixture.content("b.bin", 20 * kMiB);
  for (uint64_t i = 0; i < 20; i++) fixture.put(a, i, random_bytes(i, kMiB));
  must(fixture.chunks().flush());
  const uint64_t before = pack_bytes(dir);
  for (uint64_t i = 0; i < 20; i++) fixture.put(b, i, random_bytes(i, kMiB));
  must(fixture.chunks().flush());
  // One record of 20 digests, behind the blocks of the last chunk.
  EXPECT_LT(pack_bytes(dir) - before, 8 * kKiB);
  EXPECT_EQ(must(fixture.index().find_digests(a, 0, 20)),
            must(fixture.index().find_digests(b, 0, 20)));
  const Usage usage = must(fixture.index().usage());
  EXPECT_EQ(usage.chunks, 20u);
  EXPECT_EQ(usage.logical_bytes, 40 * kMiB);
  EXPECT_EQ(fixture.metrics().counter("store.chunks_deduplicated").value(), 20u);
}

TEST(ChunkStore, StoresSimultaneousEqualPutsOnce) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(1, kMiB);
  std::atomic<int> answers{0};
  for (uint64_t i = 0; i < 50; i++)
    fixture.put(0, i, bytes, [&](const Digest& digest, Result<Location> location) {
      EXPECT_EQ(digest, blake3(bytes));
      EXPECT_TRUE(location.ok());
      answers++;
    });
  must(fixture.chunks().flush());
  EXPECT_EQ(answers, 50);
  EXPECT_EQ(fixture.metrics().counter("store.chunks_stored").value(), 1u);
  EXPECT_EQ(must(fixture.index().usage()).chunks, 1u);
}

TEST(ChunkStore, FlippedByteIsCorruptNeverWrongBytes) {
  for (const CodecChoice codec : {CodecChoice::raw, CodecChoice::zstd}) {
    TempDir dir;
    StoreFixture fixture(dir.path(), codec);
    Buffer bytes = random_bytes(1, kMiB);
    for (size_t i = 0; i < bytes.size(); i += 2) bytes[i] = std::byte{7};  // compressible
    fixture.put(0, 0, bytes);
    must(fixture.chunks().flush());
    const Location at = location_of(fixture, blake3(bytes));
    EXPECT_EQ(at.codec, codec == CodecChoice::raw ? CodecId::raw : CodecId::zstd);
    for (const uint64_t where :
         {uint64_t{0}, uint64_t{at.encoded_bytes} / 2, uint64_t{at.encoded_bytes} - 1}) {
      flip_byte(only_pack(dir), at.offset + where);
      const auto read = fixture.chunks().read(at);
      ASSERT_FALSE(read) << where;
      EXPECT_EQ(read.error().code, Errc::corrupt);
      flip_byte(only_pack(dir), at.offset + where);
    }
    EXPECT_TRUE(fixture.chunks().read(at).ok());
  }
}

TEST(ChunkStore, StaleLocationIsCorrupt) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(1, kMiB);
  fixture.put(0, 0, bytes);
  must(fixture.chunks().flush());
  const Location at = location_of(fixture, blake3(bytes));
  {
    const File file = must(File::open(only_pack(dir), File::Mode::read_write));
    must(file.punch_hole({at.offset - 128, 4096 + kMiB}));
  }
  EXPECT_EQ(fixture.chunks().read(at).error().code, Errc::corrupt);
  Location impossible = at;
  impossible.plain_bytes = UINT32_MAX;
  EXPECT_EQ(fixture.chunks().read(impossible).error().code, Errc::corrupt);
  impossible = at;
  impossible.pack = 999;
  EXPECT_EQ(fixture.chunks().read(impossible).error().code, Errc::not_found);
}

TEST(ChunkStore, StoresAgainWhatWasDropped) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(1, kMiB);
  fixture.put(0, 0, bytes);
  must(fixture.chunks().flush());
  const Digest digest = blake3(bytes);
  const Location at = location_of(fixture, digest);
  flip_byte(only_pack(dir), at.offset);
  ASSERT_FALSE(fixture.chunks().read(at));
  must(fixture.index().drop_chunk(digest, at));
  fixture.put(0, 0, bytes);
  must(fixture.chunks().flush());
  EXPECT_EQ(fixture.find(digest), bytes);
}

TEST(ChunkStore, GoesOnInThePackThatWasLeft) {
  TempDir dir;
  const Buffer first = random_bytes(1, kMiB), second = random_bytes(2, kMiB);
  {
    StoreFixture fixture(dir.path());
    fixture.put(0, 0, first);
  }
  StoreFixture fixture(dir.path());
  fixture.put(0, 1, second);
  must(fixture.chunks().flush());
  only_pack(dir);
  EXPECT_EQ(fixture.find(blake3(first)), first);
  EXPECT_EQ(fixture.find(blake3(second)), second);
}

TEST(ChunkStore, SealsFullPacks) {
  TempDir dir;
  must(make_directories(dir / "packs"));
  MemoryBudget budget(64 * kMiB);
  BufferPool buffers(budget);
  ThreadPool pool("test", 2);
  Metrics metrics;
  auto index = must(Index::open(dir / "index.db"));
  std::vector<Digest> digests;
  {
    auto chunks = must(
        ChunkStore::open(dir.path(), *index, buffers, pool, CodecChoice::raw, metrics, 10 * kMiB));
    for (uint64_t i = 0; i < 60; i++) {
      auto buffer = buffers.allocate(kMiB);
      const Buffer bytes = random_bytes(i, kMiB);
      std::memcpy(buffer->bytes().data(), bytes.data(), kMiB);
      digests.push_back(blake3(bytes));
      PutRequest request;
      request.ordinal = i;
      request.plain = buffer;
      chunks->put(std::move(request));
      if (i % 7 == 0) must(chunks->flush());
    }
    must(chunks->flush());
    for (const auto& location : must(index->find_chunks(digests))) {
      ASSERT_TRUE(location);
      EXPECT_TRUE(chunks->read(*location).ok());
    }
  }
  const auto packs = must(index->list_packs());
  EXPECT_GE(packs.size(), 4u);
  size_t open = 0;
  for (const auto& row : packs) {
    open += row.sealed ? 0 : 1;
    EXPECT_EQ(must(must(File::open((dir / "packs") + "/" + row.name, File::Mode::read)).size()),
              row.committed_bytes);
  }
  EXPECT_LE(open, 1u);
}

// The mount goes on without storing when the disk is full, and stores again once it is not.
TEST(ChunkStore, SaysWhatItCouldNotStoreAndTriesAgain) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  fixture.put(0, 0, random_bytes(1, 1000));
  must(fixture.chunks().flush());
  const std::string pack = only_pack(dir);
  ::signal(SIGXFSZ, SIG_IGN);
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 1 * kMiB;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::atomic<bool> failed{false};
  const Buffer bytes = random_bytes(2, kMiB);
  fixture.put(0, 1, bytes,
              [&](const Digest&, Result<Location> location) { failed = !location.ok(); });
  const Status flushed = fixture.chunks().flush();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_TRUE(flushed.ok());
  EXPECT_TRUE(failed);
  EXPECT_EQ(fixture.metrics().counter("store.chunks_unstored").value(), 1u);
  EXPECT_EQ(fixture.chunks().queued_bytes(), 0u);
  EXPECT_FALSE(fixture.find(blake3(bytes)));

  fixture.put(0, 1, bytes);
  must(fixture.chunks().flush());
  EXPECT_EQ(fixture.find(blake3(bytes)), bytes);
  EXPECT_TRUE(fixture.find(blake3(random_bytes(1, 1000))));
}

// --- Crashes ---

// 24 chunks of two contents, the second half of the second equal to the first's; a flush after the
// first 8.  CAKE_TEST_DIR: the store.  Runs in a process of its own, which CAKE_FAULT kills.
constexpr uint64_t kCrashChunks = 24;
Buffer crash_chunk(uint64_t i) {
  return random_bytes(i < 20 ? i : i - 20, i % 3 == 0 ? kMiB : 10'000);
}
TEST(ChunkStoreChild, DISABLED_PutsChunks) {
  StoreFixture fixture(std::getenv("CAKE_TEST_DIR"));
  const RowId a = fixture.content("a.bin", 100 * kMiB);
  const RowId b = fixture.content("b.bin", 100 * kMiB);
  for (uint64_t i = 0; i < kCrashChunks; i++) {
    fixture.put(i < 12 ? a : b, i, crash_chunk(i));
    if (i % 8 == 7) must(fixture.chunks().flush());
    // Said only once the flush has promised it.
    if (i == 7)
      must(write_file_atomically(std::string(std::getenv("CAKE_TEST_DIR")) + "/flushed",
                                 as_bytes("yes")));
  }
}

// Every row leads to its bytes, and every chunk of `first` is there.
void check_store(StoreFixture& fixture, uint64_t first) {
  const uint64_t rows = must(fixture.index().usage()).chunks;
  uint64_t found = 0;
  std::set<Digest> distinct;
  for (uint64_t i = 0; i < kCrashChunks; i++) {
    const Digest digest = blake3(crash_chunk(i));
    const auto bytes = fixture.find(digest);
    if (bytes) {
      EXPECT_EQ(*bytes, crash_chunk(i));
    }
    if (i < first) {
      EXPECT_TRUE(bytes.has_value()) << "chunk " << i;
    }
    if (distinct.insert(digest).second) found += bytes ? 1 : 0;
  }
  EXPECT_EQ(found, rows);
}

class ChunkStoreCrash : public testing::TestWithParam<const char*> {};

TEST_P(ChunkStoreCrash, LosesNothingCommittedAndServesNothingWrong) {
  for (int passage = 1; passage <= 3; passage++) {
    TempDir dir;
    const int status =
        run_self("ChunkStoreChild.DISABLED_PutsChunks",
                 {{"CAKE_TEST_DIR", dir.path()}, {"CAKE_FAULT", cat(GetParam(), ":", passage)}});
    if (passage == 1) {
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    const bool flushed = path_exists(dir / "flushed");
    {
      StoreFixture fixture(dir.path());
      check_store(fixture, flushed ? 8 : 0);
      // And it can be written again, to the end.
      const RowId a = fixture.content("a.bin", 100 * kMiB);
      for (uint64_t i = 0; i < kCrashChunks; i++) fixture.put(a, i, crash_chunk(i));
      must(fixture.chunks().flush());
      check_store(fixture, kCrashChunks);
    }
    StoreFixture fixture(dir.path());
    check_store(fixture, kCrashChunks);
  }
}
INSTANTIATE_TEST_SUITE_P(AtEveryPoint, ChunkStoreCrash,
                         testing::Values("pack.created", "pack.added", "pack.appended",
                                         "pack.segments_appended", "pack.synced",
                                         "index.published"),
                         [](const auto& parameter) {
                           std::string name = parameter.param;
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

// Salvage is itself killed, and done again.
TEST(ChunkStore, SalvageCanBeKilledAndDoneAgain) {
  for (const char* point : {"salvage.synced", "salvage.published"}) {
    TempDir dir;
    run_self("ChunkStoreChild.DISABLED_PutsChunks",
             {{"CAKE_TEST_DIR", dir.path()}, {"CAKE_FAULT", "pack.synced:1"}});
    const int status = run_self("ChunkStoreChild.DISABLED_PutsChunks",
                                {{"CAKE_TEST_DIR", dir.path()}, {"CAKE_FAULT", cat(point, ":1")}});
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << point;
    StoreFixture fixture(dir.path());
    EXPECT_GT(must(fixture.index().usage()).chunks, 0u);
    check_store(fixture, 0);
  }
}

TEST(ChunkStore, SalvagesWhatWasSyncedButNotPublished) {
  TempDir dir;
  run_self("ChunkStoreChild.DISABLED_PutsChunks",
           {{"CAKE_TEST_DIR", dir.path()}, {"CAKE_FAULT", "pack.synced:1"}});
  StoreFixture fixture(dir.path());
  check_store(fixture, 8);
  const RowId a = fixture.content("a.bin", 100 * kMiB);
  const auto digests = must(fixture.index().find_digests(a, 0, 8));
  for (uint64_t i = 0; i < 8; i++) EXPECT_EQ(digests[i], blake3(crash_chunk(i)));
}

TEST(ChunkStore, SalvageLeavesOutDamagedChunks) {
  TempDir dir;
  run_self("ChunkStoreChild.DISABLED_PutsChunks",
           {{"CAKE_TEST_DIR", dir.path()}, {"CAKE_FAULT", "pack.synced:1"}});
  // A byte of the first chunk's payload (chunk 0 is the first big entry), and a torn end.
  flip_byte(only_pack(dir), 500'000);
  const File file = must(File::open(only_pack(dir), File::Mode::read_write));
  must(file.write_at(must(file.size()), random_bytes(9, 12'345)));
  StoreFixture fixture(dir.path());
  check_store(fixture, 0);
  const Usage usage = must(fixture.index().usage());
  EXPECT_EQ(usage.chunks, 7u);
  EXPECT_EQ(must(file.size()), must(fixture.index().list_packs()).at(0).committed_bytes);
}

TEST(ChunkStore, MakesLostIndexAgainFromPacks) {
  TempDir dir;
  const Buffer head = random_bytes(5, 100);
  RepoName repo{RepoType::model, "org/name"};
  {
    StoreFixture fixture(dir.path());
    const RowId a = fixture.content("a.bin", 100 * kMiB);
    const RowId b = fixture.content("b.bin", 100 * kMiB);
    must(fixture.chunks().record_ref("hf:https://hub.test", repo,
                                     {"main", std::string(40, 'c'), 77}));
    const auto row = *must(fixture.index().find_content(a));
    must(fixture.chunks().record_recipe(content_pack_name(row.source, row.key),
                                        {Cutter::safetensors, head}, row.bytes));
    for (uint64_t i = 0; i < kCrashChunks; i++) {
      fixture.put(a, i, crash_chunk(i));
      fixture.put(b, i, crash_chunk(i));
    }
  }
  for (const char* suffix : {"", "-wal", "-shm"}) must(remove_file((dir / "index.db") + suffix));

  StoreFixture fixture(dir.path());
  check_store(fixture, kCrashChunks);
  const RowId repo_id = must(fixture.index().find_repo("hf:https://hub.test", repo))->id;
  EXPECT_EQ(must(fixture.index().find_ref(repo_id, "main"))->commit, std::string(40, 'c'));
  EXPECT_EQ(must(fixture.index().list_snapshots(repo_id)).size(), 2u);
  const RowId a = fixture.content("a.bin", 100 * kMiB);
  const RowId b = fixture.content("b.bin", 100 * kMiB);
  EXPECT_EQ(must(fixture.index().find_recipe(a))->head, head);
  for (uint64_t i = 0; i < kCrashChunks; i++) {
    EXPECT_EQ(must(fixture.index().find_digests(a, i, 1))[0], blake3(crash_chunk(i)));
    EXPECT_EQ(must(fixture.index().find_digests(b, i, 1))[0], blake3(crash_chunk(i)));
  }
  EXPECT_EQ(must(fixture.index().usage()).contents, 2u);
}

// --- Several processes ---

// CAKE_TEST_SEED: whose chunks.  Half of them are everybody's.
TEST(ChunkStoreChild, DISABLED_PutsItsShare) {
  const uint64_t seed = std::strtoull(std::getenv("CAKE_TEST_SEED"), nullptr, 10);
  StoreFixture fixture(std::getenv("CAKE_TEST_DIR"));
  const RowId content = fixture.content("shared.bin", 200 * kMiB);
  for (uint64_t i = 0; i < 100; i++) {
    const uint64_t ordinal = i % 2 == 0 ? i : 100 * seed + i;
    fixture.put(content, ordinal, random_bytes(ordinal, 100'000));
    if (i % 30 == 0) must(fixture.chunks().flush());
  }
}

TEST(ChunkStore, TwoProcessesWriteOneStore) {
  TempDir dir;
  std::vector<std::thread> children;
  std::atomic<int> succeeded{0};
  for (const char* seed : {"1", "2"})
    children.emplace_back([&, seed] {
      const int status = run_self("ChunkStoreChild.DISABLED_PutsItsShare",
                                  {{"CAKE_TEST_DIR", dir.path()}, {"CAKE_TEST_SEED", seed}});
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) succeeded++;
    });
  for (std::thread& child : children) child.join();
  ASSERT_EQ(succeeded, 2);

  StoreFixture fixture(dir.path());
  const RowId content = fixture.content("shared.bin", 200 * kMiB);
  for (const uint64_t seed : {1u, 2u})
    for (uint64_t i = 0; i < 100; i++) {
      const uint64_t ordinal = i % 2 == 0 ? i : 100 * seed + i;
      const Buffer expected = random_bytes(ordinal, 100'000);
      EXPECT_EQ(must(fixture.index().find_digests(content, ordinal, 1))[0], blake3(expected));
      EXPECT_EQ(fixture.find(blake3(expected)), expected);
    }
  EXPECT_EQ(must(fixture.index().usage()).chunks, 150u);
}

TEST(ChunkStore, DoesNotSalvageThePackOfLivingProcess) {
  TempDir dir;
  StoreFixture living(dir.path());
  const Buffer bytes = random_bytes(1, kMiB);
  Mutex mutex;
  CondVar wake;
  bool written = false;
  living.put(0, 0, bytes, [&](const Digest&, Result<Location>) {
    MutexLock lock(mutex);
    written = true;
    wake.notify_one();
  });
  {
    MutexLock lock(mutex);
    while (!written) wake.wait(mutex);
  }
  StoreFixture other(dir.path());
  other.put(0, 0, random_bytes(2, kMiB));
  must(other.chunks().flush());
  must(living.chunks().flush());
  EXPECT_EQ(must(other.index().list_packs()).size(), 2u);
  EXPECT_EQ(other.find(blake3(bytes)), bytes);
}

TEST(ChunkStore, NamesContentsBySourceKindAndId) {
  const ContentKey key{ContentKind::sha256, "ab"};
  const std::string name = content_pack_name("s", key);
  EXPECT_TRUE(is_hex(name, 64));
  EXPECT_NE(name, content_pack_name("s2", key));
  EXPECT_NE(name, content_pack_name("s", {ContentKind::xet, "ab"}));
  EXPECT_NE(name, content_pack_name("s", {ContentKind::sha256, "abc"}));
}

}  // namespace
}  // namespace cake
