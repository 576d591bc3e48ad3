#include "fs/resend_ledger.h"

#include <gtest/gtest.h>

#include "fs/fuse_uapi.h"

namespace cake {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;

using Verdict = ResendLedger::Verdict;

class ResendLedgerTest : public testing::Test {
 protected:
  // By a worker of its own, one millisecond after the death.
  Verdict judge_after(LastDeath death, uint64_t unique, uint64_t now_ns) {
    memory_->last_death.store(death);
    memory_->died_ns.store(now_ns);
    ResendLedger ledger(*memory_);
    const Verdict verdict = ledger.judge(uapi::kUniqueResent | unique, now_ns + 1'000'000);
    if (verdict == Verdict::serve_alone) {
      ledger.begin_trial(unique);
      memory_->trial_ns.store(now_ns);
    }
    return verdict;
  }
  KeeperMemory memory_ = std::move(KeeperMemory::create()).value();
};

TEST_F(ResendLedgerTest, CrashOnTrialConvicts) {
  EXPECT_EQ(judge_after(LastDeath::crashed, 4, 1 * kSecond), Verdict::serve);
  EXPECT_EQ(judge_after(LastDeath::crashed, 4, 2 * kSecond), Verdict::serve_alone);
  EXPECT_EQ(judge_after(LastDeath::crashed, 4, 3 * kSecond), Verdict::poison);
}

TEST_F(ResendLedgerTest, CrashOnTrialConvictsNoOther) {
  for (uint64_t second = 1; second <= 2; second++) {
    memory_->last_death.store(LastDeath::crashed);
    memory_->died_ns.store(second * kSecond);
    ResendLedger ledger(*memory_);
    for (const uint64_t unique : {4, 6}) {
      ledger.judge(uapi::kUniqueResent | unique, second * kSecond);
      if (second == 2) ledger.begin_trial(unique);  // 6 is the last
    }
    memory_->trial_ns.store(second * kSecond);
  }
  EXPECT_EQ(judge_after(LastDeath::crashed, 4, 3 * kSecond), Verdict::serve_alone);
  EXPECT_EQ(ResendLedger(*memory_).judge(uapi::kUniqueResent | 6, 3 * kSecond), Verdict::poison);
}

TEST_F(ResendLedgerTest, CrashesLongAfterDeliveryDoNotCount) {
  for (uint64_t i = 1; i < 20; i++)
    EXPECT_EQ(judge_after(LastDeath::crashed, 4, i * (kSuspectNs + kSecond)), Verdict::serve);
}

TEST_F(ResendLedgerTest, PlannedEndsAndKillsConvictNobody) {
  for (const LastDeath death : {LastDeath::planned, LastDeath::killed})
    for (uint64_t i = 1; i < 20; i++) EXPECT_EQ(judge_after(death, 4, i * kSecond), Verdict::serve);
}

TEST_F(ResendLedgerTest, DesperateMountGoesByTheCount) {
  for (uint64_t i = 1; i < 6; i++) judge_after(LastDeath::killed, 4, i * kSecond);
  memory_->is_desperate.store(1);
  EXPECT_EQ(judge_after(LastDeath::killed, 4, 6 * kSecond), Verdict::poison);
  EXPECT_EQ(judge_after(LastDeath::killed, 6, 6 * kSecond), Verdict::serve);
}

TEST_F(ResendLedgerTest, AnsweredRequestIsForgotten) {
  judge_after(LastDeath::crashed, 4, 1 * kSecond);
  judge_after(LastDeath::crashed, 4, 2 * kSecond);
  ResendLedger(*memory_).forget(uapi::kUniqueResent | 4);
  EXPECT_EQ(judge_after(LastDeath::crashed, 4, 3 * kSecond), Verdict::serve);
}

TEST_F(ResendLedgerTest, TrialEndsWithTheAnswerOrWithTime) {
  ResendLedger ledger(*memory_);
  ledger.begin_trial(4);
  ledger.forget(uapi::kUniqueResent | 4);
  EXPECT_EQ(memory_->on_trial.load(), 0u);
  ledger.await_trial();
  const SteadyTime begin = steady_now();
  ledger.begin_trial(4);
  ledger.begin_trial(6);
  ledger.await_trial();
  EXPECT_GE(steady_now() - begin, std::chrono::nanoseconds(2 * kTrialNs));
}

TEST_F(ResendLedgerTest, CountsThousandsAtOnce) {
  constexpr uint64_t kRequests = 5000;
  for (uint64_t second = 1; second <= 2; second++)
    for (uint64_t i = 1; i <= kRequests; i++)
      judge_after(LastDeath::killed, 2 * i, second * kSecond);
  memory_->is_desperate.store(1);
  uint64_t blamed = 0;
  for (uint64_t i = 1; i <= kRequests; i++)
    blamed += judge_after(LastDeath::killed, 2 * i, 3 * kSecond) == Verdict::poison;
  EXPECT_EQ(blamed, kRequests);
}

TEST_F(ResendLedgerTest, FullTableForgetsTheOldest) {
  for (uint64_t i = 1; i <= 3 * kResentSlots; i++)
    EXPECT_EQ(judge_after(LastDeath::crashed, 2 * i, kSecond + i), Verdict::serve);
}

}  // namespace
}  // namespace cake
