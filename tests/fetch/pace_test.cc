#include "fetch/pace.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

const SteadyTime kStart{std::chrono::hours(100)};

HttpResponseHead head(int status, std::vector<HttpHeader> headers) {
  return {status, std::move(headers)};
}
HttpResponseHead limited(int remaining, int seconds, int status = 200) {
  return head(status, {{"ratelimit", cat("\"api\";r=", remaining, ";t=", seconds)},
                       {"ratelimit-policy", "\"fixed window\";\"api\";q=500;w=300"}});
}

TEST(Pace, IsFreeWhileThereIsPlenty) {
  Pace pace;
  EXPECT_EQ(pace.take_turn(kStart), kStart);
  pace.note(limited(400, 100), kStart, 0);
  for (int i = 0; i < 10; i++) EXPECT_EQ(pace.take_turn(kStart), kStart);
}

TEST(Pace, WaitsAsLongAsA429Asks) {
  Pace pace;
  pace.note(head(429, {{"retry-after", "7"}}), kStart, 0);
  EXPECT_EQ(pace.take_turn(kStart), kStart + Millis(8'000));
  EXPECT_EQ(pace.take_turn(kStart + Millis(9'000)), kStart + Millis(9'000));
}

TEST(Pace, AShorterDelayDoesNotTakeBackALongerOne) {
  Pace pace;
  pace.note(head(429, {{"retry-after", "70"}}), kStart, 0);
  pace.note(head(503, {{"retry-after", "1"}}), kStart, 0);
  EXPECT_EQ(pace.take_turn(kStart), kStart + Millis(71'000));
}

TEST(Pace, RetryAfterOfAGoodAnswerMeansNothing) {
  Pace pace;
  pace.note(head(200, {{"retry-after", "70"}}), kStart, 0);
  EXPECT_EQ(pace.take_turn(kStart), kStart);
}

TEST(Pace, SpreadsTheLastQuarterOverTheRestOfThePeriod) {
  Pace pace;
  EXPECT_EQ(pace.take_turn(kStart), kStart);
  pace.note(limited(99, 100), kStart, 0);
  for (int i = 1; i <= 50; i++) EXPECT_EQ(pace.take_turn(kStart), kStart + Millis(1'000 * i)) << i;
}

TEST(Pace, UsedUpWithoutA429WaitsForThePeriodsEnd) {
  Pace pace;
  EXPECT_EQ(pace.take_turn(kStart), kStart);
  pace.note(limited(0, 30), kStart, 0);
  EXPECT_EQ(pace.take_turn(kStart + Millis(10)), kStart + Millis(30'000));
  // Whoever comes then finds a new count.
  EXPECT_EQ(pace.take_turn(kStart + Millis(31'000)), kStart + Millis(31'000));
}

TEST(Pace, ANewPeriodEndsTheSpacing) {
  Pace pace;
  pace.take_turn(kStart);
  pace.note(limited(1, 100), kStart, 0);
  pace.note(limited(499, 300), kStart + Millis(100), 0);
  EXPECT_EQ(pace.take_turn(kStart + Millis(100)), kStart + Millis(100));
}

TEST(Pace, HostileNumbersCostAnHourAtMost) {
  Pace pace;
  pace.take_turn(kStart);
  pace.note(head(200, {{"ratelimit", "\"x\";r=0;t=99999999999999999999"}}), kStart, 0);
  EXPECT_LE(pace.take_turn(kStart), kStart + std::chrono::hours(1));
}

}  // namespace
}  // namespace cake
