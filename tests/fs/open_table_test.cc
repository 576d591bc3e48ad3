#include "fs/open_table.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

class OpenTableTest : public testing::Test {
 protected:
  KeeperMemory memory_ = std::move(KeeperMemory::create()).value();
};

TEST_F(OpenTableTest, FirstOpenDecidesTheMode) {
  OpenTable opens(*memory_);
  EXPECT_EQ(opens.add(7, OpenMode::passthrough, 3).mode, OpenMode::passthrough);
  const OpenRecord second = opens.add(7, OpenMode::cached, 0);
  EXPECT_EQ(second.mode, OpenMode::passthrough);
  EXPECT_EQ(second.backing_id, 3);
  EXPECT_EQ(second.count, 2u);
}

TEST_F(OpenTableTest, OutlivesItsWorker) {
  OpenTable(*memory_).add(7, OpenMode::passthrough, 0x7fffffff);
  OpenTable next(*memory_);
  const auto found = next.find(7);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->count, 1u);
  EXPECT_EQ(found->backing_id, 0x7fffffff);
  EXPECT_FALSE(next.find(8));
}

TEST_F(OpenTableTest, LastReleaseGivesTheBackingIdBack) {
  OpenTable opens(*memory_);
  opens.add(7, OpenMode::passthrough, 3);
  opens.add(7, OpenMode::passthrough, 3);
  EXPECT_FALSE(opens.remove(7, false));
  const auto last = opens.remove(7, false);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->backing_id, 3);
  EXPECT_EQ(opens.size(), 0u);
  EXPECT_FALSE(opens.remove(7, false));
}

// Counted by the worker that died before it answered: a second time, the mode could be forgotten
// while the kernel still has the file open.
TEST_F(OpenTableTest, ResentReleaseDoesNotCount) {
  OpenTable opens(*memory_);
  opens.add(7, OpenMode::passthrough, 3);
  EXPECT_FALSE(opens.remove(7, true));
  EXPECT_TRUE(opens.find(7));
}

TEST_F(OpenTableTest, FullTableEndsPassthrough) {
  OpenTable opens(*memory_);
  for (uint64_t i = 1; i <= kOpenSlots; i++) opens.add(i, OpenMode::cached, 0);
  EXPECT_TRUE(opens.may_pass_through());
  EXPECT_EQ(opens.add(kOpenSlots + 1, OpenMode::passthrough, 3).mode, OpenMode::cached);
  EXPECT_FALSE(opens.may_pass_through());
  opens.remove(1, false);
  EXPECT_EQ(opens.add(kOpenSlots + 1, OpenMode::passthrough, 3).mode, OpenMode::cached);
  EXPECT_FALSE(OpenTable(*memory_).may_pass_through());
}

}  // namespace
}  // namespace cake
