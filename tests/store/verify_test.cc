#include "store/verify.h"

#include <gtest/gtest.h>

#include "store/coverage.h"
#include "store/index_upkeep.h"
#include "store/sqlite.h"
#include "tests/support/content_fixture.h"

namespace cake {
namespace {

using State = ContentCheck::State;

ContentRow row_of(StoreFixture& fixture, RowId id) {
  return *must(fixture.index().find_content(id));
}

// Overwrites the first byte of an extent's chunk in its pack.
void damage(StoreFixture& fixture, const ContentRow& content, uint64_t ordinal) {
  const auto digests = must(fixture.index().find_digests(content.id, ordinal, 1));
  const Location at = *must(fixture.index().find_chunks(digests))[0];
  const auto pack = *must(fixture.index().find_pack(at.pack));
  const File file = must(
      File::open(cat(fixture.store().directory(), "/packs/", pack.name), File::Mode::read_write));
  std::array<std::byte, 1> byte{};
  must(file.read_exactly_at(at.offset, byte));
  byte[0] ^= std::byte{1};
  must(file.write_at(at.offset, byte));
}

TEST(Verify, CompleteFileWithTheHubsHashIsVerified) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(1, 3 * kMiB + 5);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  EXPECT_EQ(must(fixture.index().list_unverified(0, 10)).size(), 0u);
  store_bytes(fixture, content, bytes);
  EXPECT_EQ(must(fixture.index().list_unverified(0, 10)), std::vector<RowId>{content.id});

  const ContentCheck check = must(check_content(fixture.store(), content, {}));
  EXPECT_EQ(check.state, State::verified);
  EXPECT_EQ(check.checked_bytes, bytes.size());
  EXPECT_TRUE(row_of(fixture, content.id).verified);
  EXPECT_EQ(must(fixture.index().list_unverified(0, 10)).size(), 0u);
}

TEST(Verify, MissingExtentLeavesTheFileUndecided) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(2, 3 * kMiB);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  store_bytes(fixture, content, bytes, {1});
  const ContentCheck check = must(check_content(fixture.store(), content, {}));
  EXPECT_EQ(check.state, State::incomplete);
  EXPECT_EQ(check.checked_bytes, 2 * kMiB);
  const std::vector<ByteRange> missing = {{kMiB, kMiB}};
  EXPECT_EQ(must(missing_ranges(fixture.index(), content)), missing);
  EXPECT_FALSE(row_of(fixture, content.id).verified);
}

TEST(Verify, WrongBytesAreAMismatchUntilTheyAreRejected) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  Buffer bytes = random_bytes(3, 2 * kMiB);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  bytes[kMiB + 7] ^= std::byte{1};
  store_bytes(fixture, content, bytes);
  EXPECT_EQ(must(check_content(fixture.store(), content, {})).state, State::mismatch);
  EXPECT_TRUE(row_of(fixture, content.id).mismatched);
  EXPECT_EQ(must(fixture.index().list_unverified(0, 10)).size(), 0u);

  must(reject_content(fixture.store(), content));
  EXPECT_FALSE(row_of(fixture, content.id).mismatched);
  const std::vector<ByteRange> all = {{0, bytes.size()}};
  EXPECT_EQ(must(missing_ranges(fixture.index(), content)), all);
}

TEST(Verify, DamagedChunkIsDroppedAndNamed) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(4, 3 * kMiB);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  store_bytes(fixture, content, bytes);
  damage(fixture, content, 2);
  const ContentCheck check = must(check_content(fixture.store(), content, {}));
  EXPECT_EQ(check.state, State::incomplete);
  const std::vector<ByteRange> damaged = {{2 * kMiB, kMiB}};
  EXPECT_EQ(check.damaged, damaged);
  EXPECT_EQ(must(missing_ranges(fixture.index(), content)), damaged);
}

TEST(Verify, ReadsNothingOfAPartWhenTheProofIsWanted) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(2, 3 * kMiB);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  store_bytes(fixture, content, bytes, {2});
  VerifyOptions options;
  options.only_whole = true;
  const ContentCheck check = must(check_content(fixture.store(), content, options));
  EXPECT_EQ(check.state, State::incomplete);
  EXPECT_EQ(check.checked_bytes, 0u);
}

TEST(Verify, ListsTheUnverifiedInPortions) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  std::vector<RowId> ids;
  for (uint64_t i = 0; i < 3; i++) {
    const Buffer bytes = random_bytes(10 + i, kMiB);
    const ContentRow content = true_content(fixture.store(), "hf:a", cat(i, ".bin"), bytes);
    store_bytes(fixture, content, bytes);
    ids.push_back(content.id);
  }
  Index& index = fixture.index();
  EXPECT_EQ(must(index.list_unverified(0, 2)), (std::vector<RowId>{ids[0], ids[1]}));
  EXPECT_EQ(must(index.list_unverified(ids[1], 2)), std::vector<RowId>{ids[2]});
}

// What is fetched under a cut that was forgotten is other bytes, until they are compared.
TEST(Verify, IsForgottenWithTheDigestsItWasOf) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(7, 2 * kMiB);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  const auto verify = [&] {
    store_bytes(fixture, content, bytes);
    must(check_content(fixture.store(), content, {}));
    EXPECT_TRUE(row_of(fixture, content.id).verified);
  };
  verify();
  const uint64_t ordinal = 1;
  must(fixture.index().drop_digests(content.id, {&ordinal, 1}));
  EXPECT_FALSE(row_of(fixture, content.id).verified);
  verify();
  must(fixture.index().drop_recipe(content.id));
  EXPECT_FALSE(row_of(fixture, content.id).verified);
  verify();
  // A sum that is wrong says that a digest may be.
  auto db = must(Connection::open(dir / "index.db", Connection::Mode::read_write));
  must(db->execute("UPDATE recipe_segment SET known = known + 1"));
  EXPECT_FALSE(must(fixture.store().upkeep().check_segments(content.id, true)));
  EXPECT_FALSE(row_of(fixture, content.id).verified);
}

TEST(Verify, EndsWhenAsked) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer bytes = random_bytes(5, kMiB);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  store_bytes(fixture, content, bytes);
  VerifyOptions options;
  options.should_stop = [] { return true; };
  const auto check = check_content(fixture.store(), content, options);
  ASSERT_FALSE(check);
  EXPECT_EQ(check.error().code, Errc::cancelled);
}

}  // namespace
}  // namespace cake
