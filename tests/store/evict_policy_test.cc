#include "store/evict_policy.h"

#include <gtest/gtest.h>

#include <vector>

namespace cake {
namespace {

struct Chunk {
  unsigned uses = 0;
  int64_t last_access = 0;
  uint64_t bytes = 1;
};

// Indices of the chunks that go.
std::vector<size_t> victims(const std::vector<Chunk>& chunks, uint64_t bytes, int64_t now = 1000) {
  EvictionPlan plan(now, 0.1);
  for (const Chunk& chunk : chunks) plan.count(chunk.uses, chunk.last_access, chunk.bytes);
  plan.decide(bytes);
  std::vector<size_t> taken;
  for (size_t i = 0; i < chunks.size(); i++)
    if (plan.takes(chunks[i].uses, chunks[i].last_access, chunks[i].bytes)) taken.push_back(i);
  return taken;
}

TEST(EvictionPlan, TakesOldestFirst) {
  EXPECT_EQ(victims({{0, 30}, {0, 10}, {0, 20}, {0, 40}}, 2), (std::vector<size_t>{1, 2}));
}

TEST(EvictionPlan, TakesEnoughAndNoMoreOfOneSecond) {
  EXPECT_EQ(victims({{0, 10}, {0, 10}, {0, 10}, {0, 20}}, 2), (std::vector<size_t>{0, 1}));
}

TEST(EvictionPlan, SparesWhatWasReadAgain) {
  // Nine tenths were read once, and later than the two that were read often.
  std::vector<Chunk> chunks = {{2, 1}, {1, 2}};
  for (int i = 0; i < 18; i++) chunks.push_back({0, 100 + i});
  EXPECT_EQ(victims(chunks, 3), (std::vector<size_t>{2, 3, 4}));
}

TEST(EvictionPlan, TakesTheProvenOnceProbationIsSmall) {
  std::vector<Chunk> chunks = {{0, 1}};
  for (int i = 0; i < 19; i++) chunks.push_back({1, 100 + i});
  EXPECT_EQ(victims(chunks, 2), (std::vector<size_t>{1, 2}));
}

TEST(EvictionPlan, TakesEverythingWhenAskedForMore) {
  EXPECT_EQ(victims({{0, 1}, {1, 2}, {3, 3}}, 100).size(), 3u);
}

TEST(EvictionPlan, TakesTimesAheadOfTheClockForNow) {
  EXPECT_EQ(victims({{0, 5000}, {0, 900}}, 1), (std::vector<size_t>{1}));
}

TEST(AdaptedShare, FollowsTheGhostsThatCameBack) {
  EXPECT_DOUBLE_EQ(adapted_share(0.3, {100, 100, 0, 0}, 1000), 0.3);
  EXPECT_NEAR(adapted_share(0.3, {100, 100, 50, 0}, 1000), 0.35, 1e-9);
  EXPECT_NEAR(adapted_share(0.3, {100, 100, 0, 50}, 1000), 0.25, 1e-9);
  // The rarer ghosts weigh more.
  EXPECT_NEAR(adapted_share(0.3, {100, 400, 50, 0}, 1000), 0.5, 1e-9);
}

TEST(AdaptedShare, NeverGivesAQueueUp) {
  EXPECT_GT(adapted_share(0.3, {1, 1000, 0, 1000}, 1000), 0.01);
  EXPECT_LT(adapted_share(0.3, {1000, 1, 1000, 0}, 1000), 0.99);
  EXPECT_DOUBLE_EQ(adapted_share(0.3, {1, 1, 1, 1}, 0), 0.3);
}

TEST(EvictionPlan, AnswersNothingForNothing) {
  EXPECT_TRUE(victims({}, 10).empty());
  EXPECT_TRUE(victims({{0, 1}}, 0).empty());
}

}  // namespace
}  // namespace cake
