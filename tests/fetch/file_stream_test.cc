// What is done about servers that ignore Range.
#include "fetch/file_stream.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

using WholeBody = FileStream::WholeBody;
constexpr ByteRange kFar{100 * kMiB, kMiB};

// The stream of a file whose server ignores ranges for good.
void begin(FileStream& stream, ByteRange wanted) {
  EXPECT_EQ(stream.whole_body_came(kFar), WholeBody::refuse);
  EXPECT_EQ(stream.whole_body_came(kFar), WholeBody::refuse);
  EXPECT_EQ(stream.whole_body_came(wanted), WholeBody::take);
}

TEST(FileStream, BeginsAfterThreeInARow) {
  FileStream stream;
  EXPECT_FALSE(stream.join({1}));
  EXPECT_EQ(stream.whole_body_came({0, kMiB}), WholeBody::count_off);  // it begins with the range
  EXPECT_EQ(stream.whole_body_came(kFar), WholeBody::refuse);
  stream.range_came();
  begin(stream, kFar);
  EXPECT_EQ(stream.whole_body_came({0, kMiB}), WholeBody::refuse);  // one is enough
}

TEST(FileStream, BeginsAtOnceWhereThereWasOne) {
  FileStream stream;
  begin(stream, kFar);
  EXPECT_TRUE(stream.end().empty());
  EXPECT_EQ(stream.whole_body_came(kFar), WholeBody::take);
}

TEST(FileStream, AnswersWhatWasLeftToIt) {
  FileStream stream;
  begin(stream, kFar);
  EXPECT_TRUE(stream.join({7, 8}));
  EXPECT_TRUE(stream.join({2}));
  EXPECT_EQ(stream.end(), (std::vector<uint64_t>{7, 8, 2}));
  EXPECT_FALSE(stream.join({3}));
}

TEST(FileStream, GoesOnForAsLongAsAnotherWouldTakeToGetThere) {
  FileStream stream;
  begin(stream, kFar);
  EXPECT_TRUE(stream.goes_on(90 * kMiB, true, false));
  EXPECT_TRUE(stream.goes_on(150 * kMiB, false, false));
  EXPECT_FALSE(stream.goes_on(202 * kMiB, false, false));
  EXPECT_TRUE(stream.goes_on(300 * kMiB, true, true));
  EXPECT_FALSE(stream.goes_on(301 * kMiB, false, true));  // only behind it does anybody wait
  EXPECT_TRUE(stream.goes_on(599 * kMiB, false, false));
}

TEST(FileStream, SmallFilesComeWhole) {
  FileStream stream;
  begin(stream, {0, kMiB});
  EXPECT_TRUE(stream.goes_on(15 * kMiB, false, false));
  EXPECT_FALSE(stream.goes_on(16 * kMiB, false, false));
}

}  // namespace
}  // namespace cake
