#include "store/verify.h"

#include <gtest/gtest.h>

#include "store/coverage.h"
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
  EXPECT_EQ(must(fixture.index().list_unverified(10)).size(), 0u);
  store_bytes(fixture, content, bytes);
  EXPECT_EQ(must(fixture.index().list_unverified(10)), std::vector<RowId>{content.id});

  const ContentCheck check = must(check_content(fixture.store(), content, {}));
  EXPECT_EQ(check.state, State::verified);
  EXPECT_EQ(check.checked_bytes, bytes.size());
  EXPECT_TRUE(row_of(fixture, content.id).verified);
  EXPECT_EQ(must(fixture.index().list_unverified(10)).size(), 0u);
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
  EXPECT_EQ(must(fixture.index().list_unverified(10)).size(), 0u);

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
