#include "tools/progress.h"

#include <gtest/gtest.h>

#include <sstream>

#include "store/base/bytes.h"

namespace cake {
namespace {

TEST(Progress, TextHasSizesRateAndTimeLeft) {
  EXPECT_EQ(progress_text(kGiB, 4 * kGiB, 0), "1.0G/4.0G  25%");
  EXPECT_EQ(progress_text(0, 400'000'000, 100e6), "0/381M  0%  100MB/s  eta 0:00:04");
  EXPECT_EQ(progress_text(0, 0, 0), "0/0  100%");
  // More than announced, and a rate that would take years.
  EXPECT_EQ(progress_text(20, 10, 0), "10/10  100%");
  EXPECT_EQ(progress_text(0, UINT64_MAX, 2).substr(0, 9), "0/16E  0%");
}

TEST(Progress, IsSilentWhenSwitchedOff) {
  std::ostringstream err;
  Progress progress(err, true, false);
  progress.update("x", 1, 2);
  progress.finish("x", 2, 2);
  EXPECT_EQ(err.str(), "");
}

TEST(Progress, NoTerminalGetsWholeLines) {
  std::ostringstream err;
  Progress progress(err, false, true);
  progress.update("x", 1, 2);  // sooner than a line is due
  EXPECT_EQ(err.str(), "");
  progress.finish("total", 2, 2);
  EXPECT_TRUE(err.str().starts_with("total  2/2  100%"));
  EXPECT_TRUE(err.str().ends_with("\n"));
  EXPECT_EQ(err.str().find('\r'), std::string::npos);
}

}  // namespace
}  // namespace cake
