#include "fetch/readahead.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

constexpr uint64_t kPlenty = kGiB;

Readahead make(uint64_t file_bytes = kGiB) {
  return Readahead(file_bytes, ReadaheadOptions{});
}

TEST(Readahead, ALoneTouchAsksForNothing) {
  Readahead readahead = make();
  EXPECT_EQ(readahead.on_access(500 * kMiB, 64 * kKiB, kPlenty).length, 0u);
  // A page fault reads 1 MiB around itself, perhaps in two requests.
  EXPECT_EQ(readahead.on_access(300 * kMiB, 600 * kKiB, kPlenty).length, 0u);
  EXPECT_EQ(readahead.on_access(300 * kMiB + 600 * kKiB, 424 * kKiB, kPlenty).length, 0u);
}

TEST(Readahead, ARunIsReadAheadInAGrowingWindow) {
  Readahead readahead = make();
  uint64_t asked_to = 0;
  for (uint64_t offset = 0; offset < 256 * kMiB; offset += kMiB) {
    const ByteRange ask = readahead.on_access(offset, kMiB, kPlenty);
    if (ask.length == 0) continue;
    EXPECT_GE(ask.offset, offset + kMiB) << "asks for what is being read";
    if (asked_to != 0) {
      EXPECT_EQ(ask.offset, asked_to) << "leaves a gap or asks twice";
    }
    asked_to = ask.end();
  }
  EXPECT_GE(asked_to, (256 + 64) * kMiB) << "the window did not grow";
  EXPECT_LE(asked_to, (256 + 128) * kMiB) << "the window is larger than allowed";
}

TEST(Readahead, NeverAsksBeyondTheFile) {
  Readahead readahead = make(10 * kMiB);
  for (uint64_t offset = 0; offset < 10 * kMiB; offset += kMiB)
    EXPECT_LE(readahead.on_access(offset, kMiB, kPlenty).end(), 10 * kMiB);
}

TEST(Readahead, SixteenThreadsAreSixteenStreams) {
  Readahead readahead = make(16 * kGiB);
  uint64_t asked = 0;
  for (uint64_t step = 0; step < 8; step++)
    for (uint64_t thread = 0; thread < 16; thread++) {
      const uint64_t offset = thread * kGiB + step * kMiB;
      const ByteRange ask = readahead.on_access(offset, kMiB, kPlenty);
      if (ask.length == 0) continue;
      EXPECT_EQ(ask.offset / kGiB, thread) << "asks for another thread's part";
      asked++;
    }
  EXPECT_GE(asked, 16u);
}

// A rank that skips the experts of others must not fetch them.
TEST(Readahead, SkippedHolesAreNotFetched) {
  Readahead readahead = make(16 * kGiB);
  for (uint64_t i = 0; i < 100; i++)
    EXPECT_EQ(readahead.on_access(i * 64 * kMiB, kMiB, kPlenty).length, 0u);
}

TEST(Readahead, StaysWithinTheMemoryItIsGiven) {
  Readahead readahead = make();
  for (uint64_t offset = 0; offset < 64 * kMiB; offset += kMiB)
    EXPECT_LE(readahead.on_access(offset, kMiB, 3 * kMiB).length, 3 * kMiB);
}

TEST(Readahead, OffMeansOff) {
  Readahead readahead(kGiB, ReadaheadOptions{128 * kMiB, false});
  for (uint64_t offset = 0; offset < 64 * kMiB; offset += kMiB)
    EXPECT_EQ(readahead.on_access(offset, kMiB, kPlenty).length, 0u);
}

}  // namespace
}  // namespace cake
