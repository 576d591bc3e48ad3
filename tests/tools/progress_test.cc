#include "tools/progress.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "store/base/bytes.h"

namespace cake {
namespace {

TEST(Progress, TextHasSizesRateAndTimeLeft) {
  EXPECT_EQ(progress_text({"", kGiB, 4 * kGiB}, 0), "1.0G/4.0G  25%");
  EXPECT_EQ(progress_text({"", 0, 400'000'000}, 100e6), "0/381M  0%  100MB/s  eta 0:00:04");
  EXPECT_EQ(progress_text({"", 0, 0}, 0), "0/0  100%");
  EXPECT_EQ(progress_text({"", kGiB, 2 * kGiB}, 1e9, 37.6),
            "1.0G/2.0G  50%  1000MB/s  dedupe 38%  eta 0:00:01");
  // More than announced, and a rate that would take years.
  EXPECT_EQ(progress_text({"", 20, 10}, 0), "10/10  100%");
  EXPECT_EQ(progress_text({"", 0, UINT64_MAX}, 2).substr(0, 9), "0/16E  0%");
}

TEST(Progress, IsSilentWhenSwitchedOff) {
  std::ostringstream err;
  Progress progress(err, ProgressStyle::none);
  progress.update({{}, {"x", 1, 2}, {}});
  progress.finish_file("x");
  progress.finish({{}, {"x", 2, 2}, {}});
  EXPECT_EQ(err.str(), "");
}

TEST(Progress, NoTerminalGetsWholeLines) {
  std::ostringstream err;
  Progress progress(err, ProgressStyle::lines);
  progress.update({{}, {"total", 1, 2}, {}});  // sooner than a line is due
  EXPECT_EQ(err.str(), "");
  progress.finish({{}, {"total", 2, 2}, {}});
  EXPECT_TRUE(err.str().starts_with("total  2/2  100%"));
  EXPECT_TRUE(err.str().ends_with("\n"));
  EXPECT_EQ(err.str().find('\r'), std::string::npos);
}

TEST(Progress, TerminalLinesNeverWrap) {
  std::ostringstream err;
  Progress progress(err, ProgressStyle::bars, 40);
  progress.finish({{}, {std::string(200, 'n'), 1, 2}, 50.0});
  const std::string text = err.str();
  const size_t start = text.find("\x1b[K") + 3;
  EXPECT_LT(text.find('\n', start) - start, 40u);
}

TEST(Progress, EventsAreOneJsonObjectALine) {
  std::ostringstream err;
  Progress progress(err, ProgressStyle::events);
  progress.finish_file("a\xff\n");
  progress.finish({{{"a", 1, 2}}, {"total", 1, 2}, {}});
  std::istringstream lines(err.str());
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(nlohmann::json::parse(line)["event"], "file");
  ASSERT_TRUE(std::getline(lines, line));
  const auto end = nlohmann::json::parse(line);
  EXPECT_EQ(end["event"], "end");
  EXPECT_EQ(end["done"], 1);
  EXPECT_EQ(end["files"][0]["path"], "a");
  EXPECT_FALSE(std::getline(lines, line));
}

}  // namespace
}  // namespace cake
