#include "fetch/prefetcher.h"

#include <gtest/gtest.h>

#include "fetch/client.h"
#include "tests/support/fake_upstream.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

constexpr Millis kPrefetchPatience{60'000};

std::string text_of(uint64_t seed, size_t bytes) {
  return std::string(as_text(random_bytes(seed, bytes)));
}

// Two shards of 24 MiB, a file of another kind, and a client that reads ahead as told.
class PrefetcherTest : public testing::Test {
 protected:
  void open(Prefetch prefetch) {
    options_.fetch.readahead.prefetch = prefetch;
    auto far_end = std::make_unique<FakeUpstream>();
    upstream_ = far_end.get();
    upstream_->serve("org/name", "main", kCommit,
                     {{"m-00001-of-00002.bin", text_of(1, kShardBytes)},
                      {"m-00002-of-00002.bin", text_of(2, kShardBytes)},
                      {"notes.txt", text_of(3, kMiB)}});
    store_ = std::make_unique<StoreFixture>(directory_.path());
    client_ = std::make_unique<Client>(store_->store(), "hf:fake", std::move(far_end), options_,
                                       store_->metrics());
  }
  ~PrefetcherTest() override {
    client_.reset();
    store_.reset();
  }

  void read(const std::string& path, uint64_t offset, uint64_t length) {
    const auto snapshot = must(wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
      client_->find_snapshot(kRepo, "main", false, Deadline::after(kPrefetchPatience), done);
    }));
    const auto entry = snapshot->find_entry(path);
    ASSERT_TRUE(entry);
    const auto reader = must(client_->open(snapshot->content_id(*entry)));
    must(wait_for<FileReader::Slices>(
        [&](Done<FileReader::Slices> done) { reader->read(offset, length, {}, done); }));
  }
  // Whether so many bytes are fetched sooner or later.
  bool fetches(uint64_t bytes) {
    const Deadline deadline = Deadline::after(kPrefetchPatience);
    while (upstream_->counts().bytes < bytes && deadline.check())
      std::this_thread::sleep_for(Millis(5));
    return upstream_->counts().bytes >= bytes;
  }

  static constexpr uint64_t kShardBytes = 24 * kMiB;
  const TempDir directory_;
  ClientOptions options_;
  FakeUpstream* upstream_ = nullptr;
  std::unique_ptr<StoreFixture> store_;
  std::unique_ptr<Client> client_;
};

TEST_F(PrefetcherTest, AFileIsFetchedOnceItIsTouched) {
  open(Prefetch::file);
  read("m-00001-of-00002.bin", 10 * kMiB, 10);
  EXPECT_TRUE(fetches(kShardBytes));
  EXPECT_EQ(upstream_->counts().bytes, kShardBytes);
}

TEST_F(PrefetcherTest, ASmallWindowFetchesItAllTheSame) {
  options_.fetch.readahead.max_window_bytes = 5 * kMiB;
  open(Prefetch::file);
  read("m-00001-of-00002.bin", 10 * kMiB, 10);
  EXPECT_TRUE(fetches(kShardBytes));
}

TEST_F(PrefetcherTest, ARepoMeansItsFilesOfTheSameKind) {
  open(Prefetch::repo);
  read("m-00002-of-00002.bin", 0, 10);
  EXPECT_TRUE(fetches(2 * kShardBytes));
  EXPECT_EQ(upstream_->counts().bytes, 2 * kShardBytes);
}

TEST_F(PrefetcherTest, AFaultIsNoReasonToGiveUp) {
  open(Prefetch::file);
  upstream_->fail_next_reads({{{Errc::upstream, "503"}, 0}, {{Errc::timeout, "stalled"}, 0}});
  read("m-00001-of-00002.bin", 0, 10);
  EXPECT_TRUE(fetches(kShardBytes));
}

TEST_F(PrefetcherTest, ASequentialReadRunsOnIntoTheNextShard) {
  open(Prefetch::automatic);
  for (uint64_t at = 0; at < kShardBytes; at += kMiB) read("m-00001-of-00002.bin", at, kMiB);
  EXPECT_TRUE(fetches(kShardBytes + 2 * kMiB));
}

TEST_F(PrefetcherTest, ATensorIsAllThatTensorFetches) {
  open(Prefetch::tensor);
  for (uint64_t at = 0; at < kShardBytes; at += kMiB) read("m-00001-of-00002.bin", at, kMiB);
  EXPECT_EQ(upstream_->counts().bytes, kShardBytes);
}

TEST(NextShard, CountsAsLoadersDo) {
  EXPECT_EQ(next_shard("model-00001-of-00004.safetensors"), "model-00002-of-00004.safetensors");
  EXPECT_EQ(next_shard("a/b-00009-of-000163.bin"), "a/b-00010-of-000163.bin");
  EXPECT_EQ(next_shard("m-9-of-10.gguf"), "m-10-of-10.gguf");
  for (const char* last : {"model-00004-of-00004.safetensors", "model.safetensors", "x-of-y", "",
                           "-of-", "1-of-", "m-99999999999999999999-of-100000000000000000000"})
    EXPECT_FALSE(next_shard(last)) << last;
}

}  // namespace
}  // namespace cake
