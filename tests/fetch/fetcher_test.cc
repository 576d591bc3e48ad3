// Demand and readahead on their way to the upstream.
#include "fetch/fetcher.h"

#include <gtest/gtest.h>

#include <latch>

#include "fetch/client.h"
#include "tests/support/fake_upstream.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

constexpr uint64_t kFetchedBytes = 64 * kMiB;

bool covers(const std::vector<ByteRange>& ranges, uint64_t offset) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const ByteRange& range) {
    return offset >= range.offset && offset < range.end();
  });
}

// An upstream that answers nothing yet, two transfers at a time, and a reader that goes on: what it
// waits for must be asked for although readahead has it in its queue.
TEST(Fetcher, QueuedReadaheadThatSomebodyWaitsForGoesAtOnce) {
  const TempDir directory;
  StoreFixture fixture(directory.path());
  auto far_end = std::make_unique<FakeUpstream>();
  FakeUpstream& upstream = *far_end;
  upstream.serve("org/m", "main", kCommit, {{"w.bin", std::string(kFetchedBytes, 'w')}});
  ClientOptions options;
  options.fetch.max_transfers = 2;
  Client client(fixture.store(), "hf:fake", std::move(far_end), options, fixture.metrics());
  const auto snapshot = must(wait_for<Client::SnapshotPtr>([&](Done<Client::SnapshotPtr> done) {
    client.find_snapshot({RepoType::model, "org/m"}, "main", false, Deadline::never(), done);
  }));
  const auto reader = must(client.open(snapshot->content_id(0)));

  constexpr uint64_t kReads = 12;
  upstream.hold();
  std::atomic<uint64_t> right = 0;
  std::latch answered(kReads);
  for (uint64_t i = 0; i < kReads; i++)
    reader->read(i * kMiB, kMiB, {}, [&](Result<FileReader::Slices> slices) {
      uint64_t bytes = 0;
      if (slices)
        for (const ChunkSlice& slice : *slices) bytes += slice.length;
      right += bytes == kMiB;
      answered.count_down();
    });
  const std::vector<ByteRange> asked = upstream.ranges();
  for (uint64_t i = 0; i < kReads; i++) EXPECT_TRUE(covers(asked, i * kMiB)) << i;
  // Readahead itself keeps to its two transfers.
  EXPECT_FALSE(covers(asked, kFetchedBytes - 1));
  uint64_t total = 0;
  for (const ByteRange& range : asked) total += range.length;
  EXPECT_LE(total, 32 * kMiB);

  upstream.resume();
  answered.wait();
  EXPECT_EQ(right, kReads);
  client.stop();
}

}  // namespace
}  // namespace cake
