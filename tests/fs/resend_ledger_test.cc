#include "fs/resend_ledger.h"

#include <gtest/gtest.h>

#include "fs/fuse_uapi.h"

namespace cake {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

class ResendLedgerTest : public testing::Test {
 protected:
  void crash_at(uint64_t now_ns) {
    memory_->has_crashed.store(1);
    memory_->crashed_ns.store(now_ns);
  }
  // By a worker of its own, one millisecond after the crash.
  bool is_poison_after_crash_at(uint64_t unique, uint64_t now_ns) {
    crash_at(now_ns);
    return ResendLedger(*memory_).is_poison(uapi::kUniqueResent | unique, now_ns + 1'000'000);
  }
  KeeperMemory memory_ = std::move(KeeperMemory::create()).value();
};

TEST_F(ResendLedgerTest, ThirdCrashInARowIsBlamed) {
  EXPECT_FALSE(is_poison_after_crash_at(4, 1 * kSecond));
  EXPECT_FALSE(is_poison_after_crash_at(4, 2 * kSecond));
  EXPECT_TRUE(is_poison_after_crash_at(4, 3 * kSecond));
}

TEST_F(ResendLedgerTest, CrashesLongAfterDeliveryAreNot) {
  for (uint64_t i = 1; i < 20; i++)
    EXPECT_FALSE(is_poison_after_crash_at(4, i * (kSuspectNs + kSecond)));
}

TEST_F(ResendLedgerTest, PlannedEndsAreNot) {
  ResendLedger ledger(*memory_);
  memory_->has_crashed.store(0);
  for (uint64_t i = 1; i < 20; i++)
    EXPECT_FALSE(ledger.is_poison(uapi::kUniqueResent | 4, i * kSecond));
}

TEST_F(ResendLedgerTest, AnsweredRequestIsForgotten) {
  is_poison_after_crash_at(4, 1 * kSecond);
  is_poison_after_crash_at(4, 2 * kSecond);
  ResendLedger(*memory_).forget(uapi::kUniqueResent | 4);
  EXPECT_FALSE(is_poison_after_crash_at(4, 3 * kSecond));
}

TEST_F(ResendLedgerTest, CountsThousandsAtOnce) {
  constexpr uint64_t kRequests = 5000;
  for (uint64_t second = 1; second <= 2; second++)
    for (uint64_t i = 1; i <= kRequests; i++)
      EXPECT_FALSE(is_poison_after_crash_at(2 * i, second * kSecond));
  uint64_t blamed = 0;
  for (uint64_t i = 1; i <= kRequests; i++) blamed += is_poison_after_crash_at(2 * i, 3 * kSecond);
  EXPECT_EQ(blamed, kRequests);
}

TEST_F(ResendLedgerTest, FullTableForgetsTheOldest) {
  for (uint64_t i = 1; i <= 3 * kResentSlots; i++)
    EXPECT_FALSE(is_poison_after_crash_at(2 * i, kSecond + i));
}

}  // namespace
}  // namespace cake
