// Sectors that the disk cannot read.
#include <gtest/gtest.h>

#include <cerrno>

#include "store/check.h"
#include "store/verify.h"
#include "tests/store/failing_calls.h"
#include "tests/support/content_fixture.h"
#include "tests/support/names.h"

namespace cake {
namespace {

class BadSectorTest : public testing::Test {
 protected:
  BadSectorTest() {
    content_ = true_content(fixture_.store(), kSource, "w.bin", bytes_);
    store_bytes(fixture_, content_, bytes_);
  }

  ByteSpan chunk(uint64_t ordinal) const { return ByteSpan(bytes_).subspan(ordinal * kMiB, kMiB); }
  std::optional<Location> location(uint64_t ordinal) {
    const Digest digest = blake3(chunk(ordinal));
    return must(fixture_.index().find_chunks({&digest, 1}))[0];
  }
  // The chunk comes again, as by a reader that missed it, and is good then.
  void heal(uint64_t ordinal) {
    fixture_.put(content_.id, ordinal, chunk(ordinal));
    must(fixture_.chunks().flush());
    EXPECT_EQ(must(check_content(fixture_.store(), content_, {})).state,
              ContentCheck::State::verified);
  }

  const Buffer bytes_ = random_bytes(9, 4 * kMiB);
  TempDir dir_;
  StoreFixture fixture_{dir_.path()};
  ContentRow content_;
};

TEST_F(BadSectorTest, InAChunkIsAWrongChunk) {
  FailingCalls bad_sector(FailingCalls::Call::read, ".pack", EIO);
  bad_sector.at(location(1)->offset + 5'000);
  const auto read = fixture_.chunks().read(*location(1));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Errc::corrupt);
  const ContentCheck found = must(check_content(fixture_.store(), content_, {}));
  EXPECT_EQ(found.damaged, (std::vector<ByteRange>{{kMiB, kMiB}}));
  EXPECT_FALSE(location(1));
  heal(1);
}

TEST_F(BadSectorTest, DoesNotEndTheCheck) {
  for (const uint64_t before_payload : {uint64_t{0}, uint64_t{64}}) {  // in the bytes; the header
    SCOPED_TRACE(before_payload);
    FailingCalls bad_sector(FailingCalls::Call::read, ".pack", EIO);
    bad_sector.at(location(2)->offset - before_payload);
    CheckOptions options;
    options.repairs = true;
    const CheckReport report = must(check_store(fixture_.store(), options));
    EXPECT_EQ(report.problems[0].kind, CheckProblem::Kind::chunk_damaged);
    EXPECT_EQ(report.repaired_count, 1u);
    EXPECT_FALSE(location(2));
    EXPECT_TRUE(location(3));
    heal(2);
  }
}

}  // namespace
}  // namespace cake
