#include "fetch/plan.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

constexpr uint64_t kRegion = 16 * kMiB;

TEST(Plan, MergesNeighboursUpToTheLimit) {
  const Extents extents = Extents::uniform(10 * kMiB);
  const std::vector<uint64_t> missing{0, 1, 2, 3, 4};
  const auto ranges = plan_ranges(extents, missing, 2 * kMiB, kRegion);
  ASSERT_EQ(ranges.size(), 3u);
  EXPECT_EQ(ranges[0].bytes, (ByteRange{0, 2 * kMiB}));
  EXPECT_EQ(ranges[2].bytes, (ByteRange{4 * kMiB, kMiB}));
}

TEST(Plan, LeavesOutWhatIsPresent) {
  const Extents extents = Extents::uniform(10 * kMiB);
  const std::vector<uint64_t> missing{0, 2, 3};
  const auto ranges = plan_ranges(extents, missing, 8 * kMiB, kRegion);
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].count, 1u);
  EXPECT_EQ(ranges[1].first, 2u);
  EXPECT_EQ(ranges[1].count, 2u);
}

// One claim covers 16 MiB: a range that crossed it would fetch what another process fetches.
TEST(Plan, NeverCrossesARegion) {
  const Extents extents = Extents::uniform(40 * kMiB);
  const std::vector<uint64_t> missing{14, 15, 16, 17};
  const auto ranges = plan_ranges(extents, missing, 8 * kMiB, kRegion);
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].bytes.end(), 16 * kMiB);
}

}  // namespace
}  // namespace cake
