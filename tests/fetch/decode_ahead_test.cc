#include "fetch/decode_ahead.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

constexpr uint64_t kFile = 4 * kGiB;

TEST(DecodeAhead, LoneTouchesAskForNothing) {
  DecodeAhead ahead(kFile);
  for (uint64_t i = 0; i < 100; i++)
    EXPECT_EQ(ahead.on_access((i * 37 % 100) * 40 * kMiB, kMiB).length, 0u) << i;
}

TEST(DecodeAhead, KeepsAWindowAheadOfARun) {
  DecodeAhead ahead(kFile);
  uint64_t asked_to = 0;
  for (uint64_t offset = 0; offset < 200 * kMiB; offset += kMiB) {
    const ByteRange ask = ahead.on_access(offset, kMiB);
    if (offset == 0) {
      EXPECT_EQ(ask.length, 0u);
      continue;
    }
    // Each byte is asked for once, and no further than the window.
    EXPECT_TRUE(ask.offset == asked_to || asked_to == 0);
    EXPECT_EQ(ask.end(), offset + kMiB + DecodeAhead::kWindowBytes);
    asked_to = ask.end();
  }
}

TEST(DecodeAhead, RequestsThatPassEachOtherAreOneRun) {
  DecodeAhead ahead(kFile);
  uint64_t asked = 0;
  for (uint64_t i = 0; i < 64; i++) asked += ahead.on_access((i ^ 1) * kMiB, kMiB).length;
  EXPECT_GE(asked, 60 * kMiB);
  EXPECT_LE(asked, 64 * kMiB + DecodeAhead::kWindowBytes);
}

TEST(DecodeAhead, RunsShareTheWindow) {
  DecodeAhead ahead(kFile);
  constexpr uint64_t kRuns = 16;
  uint64_t asked = 0;
  for (uint64_t step = 0; step < 32; step++)
    for (uint64_t run = 0; run < kRuns; run++)
      asked += ahead.on_access(run * 256 * kMiB + step * kMiB, kMiB).length;
  // Beside what was read since, never more than the least window of each.
  EXPECT_LE(asked,
            kRuns * (32 * kMiB + DecodeAhead::kLeastWindowBytes) + DecodeAhead::kWindowBytes);
  EXPECT_GE(asked, kRuns * 24 * kMiB);
}

TEST(DecodeAhead, EndsWithTheFile) {
  DecodeAhead ahead(5 * kMiB);
  ahead.on_access(0, kMiB);
  EXPECT_EQ(ahead.on_access(kMiB, kMiB).end(), 5 * kMiB);
  EXPECT_EQ(ahead.on_access(2 * kMiB, kMiB).length, 0u);
  EXPECT_EQ(ahead.on_access(3 * kMiB, 2 * kMiB).length, 0u);
}

TEST(DecodeAhead, ForgetsOldRunsWhenThereAreMany) {
  DecodeAhead ahead(kFile);
  for (uint64_t i = 0; i < 10 * DecodeAhead::kMaxRuns; i++) ahead.on_access(i * 8 * kMiB, kMiB);
  ahead.on_access(3 * kGiB, kMiB);
  EXPECT_GT(ahead.on_access(3 * kGiB + kMiB, kMiB).length, 0u);
}

}  // namespace
}  // namespace cake
