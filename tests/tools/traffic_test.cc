#include "tools/traffic.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

TEST(Traffic, IsReadAsItWasWritten) {
  const Traffic traffic{1'234'567'890'123, 7, 42, 1'700'000'000};
  const std::optional<Traffic> read = parse_traffic(format_traffic(traffic));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->fetched_bytes, traffic.fetched_bytes);
  EXPECT_EQ(read->open_files, traffic.open_files);
  EXPECT_EQ(read->rate, traffic.rate);
  EXPECT_EQ(read->at, traffic.at);
}

TEST(Traffic, RefusesWhatItDidNotWrite) {
  EXPECT_FALSE(parse_traffic("fetched"));
  EXPECT_FALSE(parse_traffic("fetched -1\n"));
  EXPECT_FALSE(parse_traffic("open 1x\n"));
  // A later version may say more.
  EXPECT_TRUE(parse_traffic("fetched 1\nsurprise 5\n"));
}

}  // namespace
}  // namespace cake
