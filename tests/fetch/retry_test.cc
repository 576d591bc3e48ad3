#include "fetch/retry.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

HttpResponseHead head(std::string name, std::string value) {
  return {429, {{std::move(name), std::move(value)}}};
}

TEST(Retry, BackoffDoublesUpToItsBound) {
  const BackoffOptions options{Millis(100), Millis(1'000)};
  EXPECT_EQ(backoff_delay(options, 1, 0), Millis(100));
  EXPECT_EQ(backoff_delay(options, 3, 0), Millis(400));
  EXPECT_EQ(backoff_delay(options, 5, 0), Millis(1'000));
  EXPECT_EQ(backoff_delay(options, 4'000'000'000, 0), Millis(1'000));
}

TEST(Retry, JitterTakesAtMostHalf) {
  const BackoffOptions options{Millis(100), Millis(1'000)};
  for (uint64_t random = 0; random < 200; random++) {
    const Millis delay = backoff_delay(options, 1, random);
    EXPECT_GE(delay, Millis(50));
    EXPECT_LE(delay, Millis(100));
  }
  EXPECT_NE(backoff_delay(options, 1, 7), backoff_delay(options, 1, 8));
}

TEST(Retry, HonoursRetryAfterSeconds) {
  EXPECT_EQ(asked_delay(head("retry-after", "7"), 0), Millis(8'000));
}

TEST(Retry, HonoursRetryAfterDate) {
  EXPECT_EQ(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777);
  const auto with_date = head("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(asked_delay(with_date, 784111767), Millis(11'000));
  EXPECT_EQ(asked_delay(with_date, 784111999), Millis(1'000));
}

TEST(Retry, HonoursExhaustedRateLimitOnly) {
  EXPECT_EQ(asked_delay(head("ratelimit", "\"api\";r=0;t=55"), 0), Millis(56'000));
  EXPECT_EQ(asked_delay(head("ratelimit", "\"api\"; r=0; t=55"), 0), Millis(56'000));
  EXPECT_EQ(asked_delay(head("ratelimit", "\"api\";r=12;t=55"), 0), std::nullopt);
  EXPECT_EQ(asked_delay(head("ratelimit", "\"api\";r=0"), 0), std::nullopt);
}

TEST(Retry, BoundsAndIgnoresNonsense) {
  EXPECT_EQ(asked_delay(head("retry-after", "99999999999999999999999"), 0), Millis(3'601'000));
  for (const char* text : {"", "soon", "-5", "1.5", "Mon, 99 Foo 2020 00:00:00 GMT"})
    EXPECT_EQ(asked_delay(head("retry-after", text), 0), std::nullopt) << text;
}

TEST(Retry, KnowsWhatMayPass) {
  EXPECT_TRUE(is_transient_status(503));
  EXPECT_TRUE(is_transient_status(429));
  EXPECT_FALSE(is_transient_status(404));
  EXPECT_FALSE(is_transient_status(501));
  EXPECT_TRUE(is_transient(Errc::offline));
  EXPECT_FALSE(is_transient(Errc::cancelled));
  EXPECT_FALSE(is_transient(Errc::denied));
}

}  // namespace
}  // namespace cake
