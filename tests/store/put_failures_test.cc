// Disks, indexes and packs that fail under a put: what else is put is stored all the same.
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "store/check.h"
#include "store/sqlite.h"
#include "tests/store/failing_calls.h"
#include "tests/support/names.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

using Call = FailingCalls::Call;

bool has_row(StoreFixture& fixture, ByteSpan bytes) {
  const Digest digest = blake3(bytes);
  return must(fixture.index().find_chunks(std::span(&digest, 1)))[0].has_value();
}

class PutFailures : public testing::Test {
 protected:
  std::string only_pack() {
    for (const std::string& name : must(list_directory(dir_ / "packs")))
      if (name.ends_with(".pack")) return (dir_ / "packs") + "/" + name;
    return "";
  }
  TempDir dir_;
};

TEST_F(PutFailures, StoreInAnotherPackWhenATailCannotBeRead) {
  {
    StoreFixture fixture(dir_.path());
    fixture.put(0, 0, random_bytes(1, kMiB));
    must(fixture.chunks().flush());
  }
  const File pack = must(File::open(only_pack(), File::Mode::read_write));
  const uint64_t end = must(pack.size());
  must(pack.write_at(end + 4096, random_bytes(3, 100'000)));
  FailingCalls bad_sector(Call::read, ".pack", EIO);
  bad_sector.at(end + 50'000);
  StoreFixture fixture(dir_.path());
  const Buffer bytes = random_bytes(2, kMiB);
  fixture.put(0, 0, bytes);
  must(fixture.chunks().flush());
  EXPECT_TRUE(has_row(fixture, bytes));
}

// Full, the disk takes neither the chunks nor the seal.
TEST_F(PutFailures, StoreAgainAfterAFullDiskCondemnedThePack) {
  StoreFixture fixture(dir_.path());
  fixture.put(0, 0, random_bytes(1, kMiB));
  must(fixture.chunks().flush());
  const std::string condemned = only_pack();
  {
    FailingCalls no_seal(Call::write, "-wal", ENOSPC), no_sync(Call::sync, ".pack", ENOSPC);
    fixture.put(0, 0, random_bytes(2, kMiB));
    EXPECT_FALSE(fixture.chunks().flush());
  }
  for (uint64_t i = 0; i < 3; i++) {
    const Buffer bytes = random_bytes(10 + i, kMiB);
    fixture.put(0, 0, bytes);
    must(fixture.chunks().flush());
    EXPECT_TRUE(has_row(fixture, bytes));
  }
  for (const Index::PackRow& row : must(fixture.index().list_packs()))
    if (condemned.ends_with(row.name)) EXPECT_TRUE(row.sealed);
}

// A record of what was deduplicated is appended between the first try and the next.
TEST_F(PutFailures, CutNothingOffThatIsCommitted) {
  StoreFixture fixture(dir_.path());
  const RowId content = fixture.content("x", kGiB);
  const Buffer bytes = random_bytes(1, kMiB);
  fixture.put(0, 0, bytes);
  must(fixture.chunks().flush());
  const Index::PackRow row = must(fixture.index().list_packs())[0];
  // What was taken ahead is given back after a quiet second.
  const SteadyTime until = steady_now() + Millis(60'000);
  while (must(path_disk_bytes(only_pack())) > kMiB + 16 * kKiB && steady_now() < until)
    std::this_thread::yield();
  {
    FailingCalls full(Call::allocate, ".pack", ENOSPC);
    std::atomic<int> found{0};
    for (uint64_t i = 0; i < 20; i++)
      fixture.put(content, i, bytes, [&](const Digest&, Result<Location>) { found++; });
    while (found < 20 && steady_now() < until) std::this_thread::yield();
    fixture.put(content, 100, random_bytes(2, kMiB));
    (void)fixture.chunks().flush();  // the chunk is not stored
  }
  const Index::PackRow now = must(fixture.index().find_pack(row.id)).value();
  EXPECT_GT(now.committed_bytes, row.committed_bytes);
  EXPECT_GE(must(must(File::open(only_pack(), File::Mode::read)).size()), now.committed_bytes);
}

TEST_F(PutFailures, ReadThroughThePageCacheWhereDirectReadsAreRefused) {
  StoreFixture fixture(dir_.path());
  const Buffer bytes = random_bytes(1, kMiB);
  fixture.put(0, 0, bytes);
  must(fixture.chunks().flush());
  FailingCalls refused(Call::read_direct, ".pack", EINVAL);
  EXPECT_EQ(fixture.find(blake3(bytes)), bytes);
}

// One content's damaged row, not everybody's.
TEST(PutOfADamagedRecipe, KeepsNobodyElseWaiting) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId damaged = fixture.content("a", kGiB), sound = fixture.content("b", kGiB);
  fixture.put(damaged, 0, random_bytes(1, 1000));
  must(fixture.chunks().flush());
  {
    const auto db = must(Connection::open(dir / "index.db", Connection::Mode::read_write));
    must(db->execute(
        cat("UPDATE recipe_segment SET digests = zeroblob(40000) WHERE content = ", damaged)));
  }
  const Buffer one = random_bytes(2, 1000), other = random_bytes(3, 1000);
  fixture.put(damaged, 1, one);
  fixture.put(damaged, uint64_t{1} << 50, random_bytes(4, 1000));
  fixture.put(sound, 0, other);
  must(fixture.chunks().flush());
  EXPECT_TRUE(has_row(fixture, one));
  EXPECT_TRUE(has_row(fixture, other));
  EXPECT_EQ(must(fixture.index().find_digests(sound, 0, 1))[0], blake3(other));
}

}  // namespace
}  // namespace cake
