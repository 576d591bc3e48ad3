#include "store/check.h"

#include <gtest/gtest.h>

#include "store/index_upkeep.h"
#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

class CheckTest : public testing::Test {
 protected:
  void SetUp() override {
    const RowId file = fixture_.content("file", 8 * kMiB);
    for (uint64_t i = 0; i < 8; i++) fixture_.put(file, i, random_bytes(i, 100'000));
    must(fixture_.chunks().flush());
    digests_ = must(fixture_.index().find_digests(file, 0, 8));
  }
  CheckReport check(bool repairs = false) {
    CheckOptions options;
    options.repairs = repairs;
    return must(check_store(fixture_.store(), options));
  }
  Location location(size_t i) {
    return *must(fixture_.index().find_chunks(std::span(&digests_[i], 1)))[0];
  }
  File pack() {
    const auto row = must(fixture_.index().list_packs())[0];
    return must(File::open(dir_.path() + "/packs/" + row.name, File::Mode::read_write));
  }
  void flip(uint64_t offset) {
    const File file = pack();
    std::byte byte{};
    must(file.read_exactly_at(offset, MutableByteSpan(&byte, 1)));
    byte ^= std::byte{1};
    must(file.write_at(offset, ByteSpan(&byte, 1)));
  }

  TempDir dir_;
  StoreFixture fixture_{dir_.path()};
  std::vector<Digest> digests_;
};

TEST_F(CheckTest, FindsNothingInASoundStore) {
  const CheckReport report = check();
  EXPECT_TRUE(report.is_clean()) << report.problems[0].what;
  EXPECT_EQ(report.chunks, 8u);
  EXPECT_EQ(report.bytes, 800'000u);
  EXPECT_EQ(report.packs, 1u);
  EXPECT_EQ(report.snapshots, 1u);
}

TEST_F(CheckTest, FindsAndRepairsFlippedBits) {
  flip(location(2).offset + 77);        // in the bytes
  flip(location(5).offset - 128 + 40);  // in the header before them
  CheckReport report = check();
  EXPECT_EQ(report.problem_count, 2u);
  EXPECT_EQ(report.problems[0].kind, CheckProblem::Kind::chunk_damaged);
  report = check(true);
  EXPECT_EQ(report.repaired_count, 2u);
  EXPECT_TRUE(check().is_clean());
  EXPECT_FALSE(fixture_.find(digests_[2]));
  EXPECT_TRUE(fixture_.find(digests_[3]));
}

TEST_F(CheckTest, LooksAtHeadersOnlyWhenAsked) {
  flip(location(2).offset + 77);
  CheckOptions options;
  options.reads_chunks = false;
  EXPECT_TRUE(must(check_store(fixture_.store(), options)).is_clean());
}

TEST_F(CheckTest, FindsAndRepairsATruncatedPack) {
  const Location last = location(7);
  must(pack().truncate(last.offset + 10));
  EXPECT_GE(check().problem_count, 2u);  // the pack, and its last chunk
  check(true);
  EXPECT_TRUE(check().is_clean());
  EXPECT_FALSE(must(fixture_.index().find_chunks(std::span(&digests_[7], 1)))[0]);
  EXPECT_TRUE(fixture_.find(digests_[3]));
}

TEST_F(CheckTest, FindsAndRepairsAMissingPack) {
  must(remove_file(pack().path()));
  EXPECT_EQ(check().problem_count, 9u);  // the pack, and its chunks
  check(true);
  EXPECT_TRUE(check().is_clean());
  EXPECT_EQ(must(fixture_.index().list_packs()).size(), 0u);
}

// Whose writer would go on, and its chunks be gone with the file.
TEST_F(CheckTest, LeavesAPackWithoutHeaderToItsWriter) {
  flip(20);
  StoreFixture other(dir_.path());
  CheckOptions options;
  options.repairs = true;
  must(check_store(other.store(), options));
  const std::string path = pack().path();
  EXPECT_TRUE(path_exists(path));
  const Buffer next = random_bytes(50, 100'000);
  fixture_.put(0, 0, next);
  must(fixture_.chunks().flush());
  EXPECT_EQ(fixture_.find(blake3(next)), next);
}

// A newer program's, which this one cannot judge.
TEST_F(CheckTest, LeavesAPackOfANewerVersionAlone) {
  flip(8);
  EXPECT_TRUE(check().is_clean());
  EXPECT_TRUE(check(true).is_clean());
  EXPECT_TRUE(fixture_.find(digests_[3]));
}

TEST_F(CheckTest, FindsAndRepairsADigestThatPacksTellOtherwise) {
  const RowId whole = fixture_.content("whole", 2 * kMiB);
  must(fixture_.index().put_recipe(whole, {Cutter::uniform, {}}));
  for (uint64_t i = 0; i < 2; i++) fixture_.put(whole, i, random_bytes(100 + i, kMiB));
  must(fixture_.chunks().flush());
  ASSERT_TRUE(check().is_clean());
  PublishedExtent wrong;
  wrong.content = whole;
  wrong.ordinal = 1;
  wrong.digest = must(fixture_.index().find_digests(whole, 1, 1))[0];
  wrong.digest.bytes[3] ^= std::byte{4};
  wrong.plain_bytes = kMiB;
  const auto row = must(fixture_.index().list_packs())[0];
  must(fixture_.index().publish(std::span(&wrong, 1), row.id, row.committed_bytes));
  CheckReport report = check();
  EXPECT_EQ(report.problem_count, 1u);
  EXPECT_EQ(report.problems[0].kind, CheckProblem::Kind::recipe_damaged);
  report = check(true);
  EXPECT_EQ(report.repaired_count, 1u);
  EXPECT_TRUE(must(fixture_.index().find_digests(whole, 1, 1))[0].is_zero());
  EXPECT_FALSE(must(fixture_.index().find_digests(whole, 0, 1))[0].is_zero());
  EXPECT_TRUE(check().is_clean());
}

TEST_F(CheckTest, StopsWhenCancelled) {
  auto token = std::make_shared<CancelToken>();
  token->cancel();
  CheckOptions options;
  options.cancel = token;
  const auto report = check_store(fixture_.store(), options);
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().code, Errc::cancelled);
}

TEST_F(CheckTest, RefusesToSetAnIndexInUseAside) {
  const Status refused = set_index_aside(dir_.path());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::invalid);
}

}  // namespace
}  // namespace cake
