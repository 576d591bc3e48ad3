// Chunks that were stored as they are because encoders were behind, and encoded when there was
// time.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "store/base/digest.h"
#include "store/chunk_store.h"
#include "store/index_upkeep.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

// BF16 of a narrow range of exponents: a third of it compresses away.
Buffer weights(uint64_t seed) {
  Buffer bytes = random_bytes(seed, kMiB);
  for (size_t i = 1; i < bytes.size(); i += 2)
    bytes[i] = static_cast<std::byte>(0x3b + (static_cast<unsigned>(bytes[i]) & 0x83));
  return bytes;
}

// What the packs take on the disk: holes do not count.
uint64_t allocated_bytes(const std::string& packs) {
  uint64_t sum = 0;
  for (const auto& file : std::filesystem::directory_iterator(packs)) {
    struct stat status {};
    EXPECT_EQ(stat(file.path().c_str(), &status), 0);
    sum += static_cast<uint64_t>(status.st_blocks) * 512;
  }
  return sum;
}

// A store whose pool has one thread, which does nothing until it is let.
class BusyStore {
 public:
  BusyStore() {
    must(make_directories(dir_ / "packs"));
    index_ = must(Index::open(dir_ / "index.db"));
    chunks_ = must(
        ChunkStore::open(dir_.path(), *index_, buffers_, pool_, CodecChoice::automatic, metrics_));
    pool_.post(ThreadPool::Priority::demand, [this] {
      MutexLock lock(mutex_);
      while (!is_free_) wake_.wait(mutex_);
    });
  }
  void put(ByteSpan bytes) {
    auto buffer = buffers_.allocate(bytes.size());
    std::memcpy(buffer->bytes().data(), bytes.data(), bytes.size());
    PutRequest request;
    request.dtype = Dtype::bf16;
    request.plain = std::move(buffer);
    chunks_->put(std::move(request));
  }
  void let_go() {
    MutexLock lock(mutex_);
    is_free_ = true;
    wake_.notify_one();
  }
  Location find(ByteSpan bytes) {
    const Digest digest = blake3(bytes);
    return must(index_->find_chunks(std::span(&digest, 1)))[0].value();
  }
  uint64_t counter(const char* name) { return metrics_.counter(name).value(); }
  ChunkStore& chunks() { return *chunks_; }
  std::string packs() const { return dir_ / "packs"; }

 private:
  TempDir dir_;
  MemoryBudget budget_{16 * kMiB};
  BufferPool buffers_{budget_};
  Metrics metrics_;
  std::unique_ptr<Index> index_;
  Mutex mutex_;
  CondVar wake_;
  bool is_free_ GUARDED_BY(mutex_) = false;
  ThreadPool pool_{"test", 1};
  std::unique_ptr<ChunkStore> chunks_;
};

TEST(Recode, EncodesLaterWhatThereWasNoTimeFor) {
  BusyStore store;
  std::vector<Buffer> chunks;
  for (uint64_t seed = 0; seed < 10; seed++) chunks.push_back(weights(seed));
  for (const Buffer& chunk : chunks) store.put(chunk);
  store.let_go();
  must(store.chunks().flush());
  // 10 MiB waited where 2 may.
  const uint64_t deferred = store.counter("store.chunks_unencoded");
  EXPECT_GE(deferred, 5u);
  EXPECT_LT(deferred, 10u);

  const auto all_encoded = [&] {
    for (const Buffer& chunk : chunks)
      if (store.find(chunk).codec != CodecId::float_planes) return false;
    return true;
  };
  const SteadyTime deadline = steady_now() + Millis(120'000);
  while (!all_encoded() && steady_now() < deadline) must(store.chunks().flush());
  ASSERT_TRUE(all_encoded());
  EXPECT_EQ(store.counter("store.chunks_recoded"), deferred);
  for (const Buffer& chunk : chunks)
    EXPECT_EQ(to_buffer(must(store.chunks().read(store.find(chunk)))->bytes()), chunk);
  // The copies are gone from the disk: the last one before the flush after it.
  must(store.chunks().flush());
  EXPECT_LT(allocated_bytes(store.packs()), 9 * kMiB);
}

TEST(Recode, LeavesWhatIsEncodedInTime) {
  BusyStore store;
  store.put(weights(1));
  store.let_go();
  must(store.chunks().flush());
  EXPECT_EQ(store.counter("store.chunks_unencoded"), 0u);
  EXPECT_EQ(store.find(weights(1)).codec, CodecId::float_planes);
}

TEST(Recode, ClosesWithoutWaitingForWhatIsUnencoded) {
  const Buffer first = weights(0);
  BusyStore store;
  for (uint64_t seed = 0; seed < 10; seed++) store.put(weights(seed));
  store.let_go();
  must(store.chunks().flush());
  EXPECT_EQ(to_buffer(must(store.chunks().read(store.find(first)))->bytes()), first);
}

// A store made under codec=raw, opened under another codec, and back.
TEST(Recode, EncodesAnewOnRequest) {
  TempDir dir;
  const std::vector<Buffer> chunks = {weights(1), weights(2), random_bytes(3, kMiB)};
  const std::string name = content_pack_name("s", {ContentKind::sha256, "ab"});
  const auto recode_all = [&](StoreFixture& fixture) {
    size_t moved = 0;
    for (size_t i = 0; i < chunks.size(); i++) {
      const Digest digest = blake3(chunks[i]);
      const Location from = must(fixture.index().find_chunks(std::span(&digest, 1)))[0].value();
      moved += must(fixture.chunks().recode({digest, from, Dtype::bf16, name, i}));
      must(fixture.chunks().flush());
    }
    for (const Buffer& chunk : chunks) EXPECT_EQ(fixture.find(blake3(chunk)), chunk);
    return moved;
  };
  {
    StoreFixture raw(dir.path(), CodecChoice::raw);
    for (const Buffer& chunk : chunks) raw.put(0, 0, chunk);
    must(raw.chunks().flush());
    EXPECT_EQ(recode_all(raw), 0u);
  }
  {
    StoreFixture encoded(dir.path(), CodecChoice::rans);
    EXPECT_EQ(recode_all(encoded), 2u);
    EXPECT_EQ(recode_all(encoded), 0u);
    must(encoded.chunks().flush());
    EXPECT_LT(allocated_bytes(dir / "packs"), 2'700'000u);
  }
  StoreFixture raw(dir.path(), CodecChoice::raw);
  EXPECT_EQ(recode_all(raw), 2u);
  EXPECT_FALSE(raw.chunks().recode({Digest{}, {}, Dtype::bf16, "no name", 0}));
}

// An eviction drops the row, a recode is published, and the eviction gives the row back, for the
// file was opened meanwhile.
TEST(Recode, LeavesWhatARowMayComeBackTo) {
  TempDir dir;
  const Buffer bytes = weights(1);
  const Digest digest = blake3(bytes);
  {
    StoreFixture raw(dir.path(), CodecChoice::raw);
    raw.put(0, 0, bytes);
    must(raw.chunks().flush());
  }
  StoreFixture fixture(dir.path(), CodecChoice::rans);
  const Location from = must(fixture.index().find_chunks(std::span(&digest, 1)))[0].value();
  const ChunkRow row{digest, from, 0, 0};
  const std::string name = content_pack_name("s", {ContentKind::sha256, "ab"});
  ASSERT_TRUE(must(fixture.chunks().recode({digest, from, Dtype::bf16, name, 0})));
  must(fixture.store().upkeep().drop_chunks(std::span(&row, 1), false));
  must(fixture.chunks().flush());
  must(fixture.chunks().flush());  // the punches come before the second
  must(fixture.store().upkeep().restore_chunks(std::span(&row, 1)));
  EXPECT_EQ(fixture.find(digest), bytes);
}

}  // namespace
}  // namespace cake
