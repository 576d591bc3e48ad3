#include "fetch/flow.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

namespace cake {
namespace {

// A link on which `rate(n)` bytes a second come through n transfers; more is wanted all the time.
class Link {
 public:
  Link(Flow& flow, std::function<double(unsigned)> rate) : flow_(flow), rate_(std::move(rate)) {}
  void run(Millis duration) {
    for (const SteadyTime end = now_ + duration; now_ < end;) {
      now_ += Millis(10);
      flow_.refused();
      flow_.received(static_cast<uint64_t>(rate_(flow_.transfers()) / 100), now_);
    }
  }
  SteadyTime now() const { return now_; }

 private:
  Flow& flow_;
  const std::function<double(unsigned)> rate_;
  SteadyTime now_{std::chrono::hours(50)};
};

// 400 MB/s in all, 25 MB/s each.
double capped(unsigned transfers) {
  return std::min(400e6, 25e6 * 0.85 * transfers);
}

TEST(Flow, ClimbsToTheLinksTop) {
  Flow flow({.first_transfers = 4, .max_transfers = 48});
  Link link(flow, capped);
  link.run(Millis(5'000));
  EXPECT_GE(flow.transfers(), 19U);
  EXPECT_LE(flow.transfers(), 32U);
}

TEST(Flow, ReachesNineTenthsWithinASecond) {
  Flow flow({.first_transfers = 16, .max_transfers = 48});
  Link link(flow, capped);
  link.run(Millis(1'000));
  EXPECT_GE(capped(flow.transfers()), 360e6);
}

TEST(Flow, TakesFewWhereMoreBringNothing) {
  Flow flow({.first_transfers = 8, .max_transfers = 48});
  Link link(flow, [](unsigned) { return 1e9; });
  unsigned most = 0;
  for (int i = 0; i < 300; i++) {
    link.run(Millis(100));
    most = std::max(most, flow.transfers());
  }
  EXPECT_LE(most, 12U);
  EXPECT_LE(flow.transfers(), 5U);
  EXPECT_GE(flow.transfers(), 4U);
}

TEST(Flow, ComesBackFromMoreThanTheLinkNeeds) {
  Flow flow({.first_transfers = 48, .max_transfers = 48});
  Link link(flow, capped);
  double bytes = 0;
  for (int i = 0; i < 600; i++) {
    link.run(Millis(100));
    bytes += capped(flow.transfers()) / 10;
  }
  EXPECT_LE(flow.transfers(), 26U);
  EXPECT_GE(bytes, 0.97 * 60 * 400e6) << "what trying costs";
}

TEST(Flow, NoiseDoesNotDriveIt) {
  std::mt19937 random(5);
  std::normal_distribution<double> noise(1, 0.05);
  Flow flow({.first_transfers = 16, .max_transfers = 48});
  Link link(flow, [&](unsigned transfers) { return capped(transfers) * noise(random); });
  double bytes = 0, transfers = 0;
  constexpr int kTenths = 3'000;
  for (int i = 0; i < kTenths; i++) {
    link.run(Millis(100));
    bytes += capped(flow.transfers()) / 10;
    transfers += flow.transfers();
  }
  EXPECT_GE(bytes, 0.95 * kTenths / 10 * 400e6);
  EXPECT_LE(transfers / kTenths, 28);
}

TEST(Flow, FollowsALinkThatGrows) {
  double each = 50e6;
  Flow flow({.first_transfers = 8, .max_transfers = 48});
  Link link(flow, [&](unsigned transfers) { return std::min(400e6, each * transfers); });
  link.run(Millis(5'000));
  EXPECT_LE(flow.transfers(), 12U);
  each = 10e6;
  link.run(Millis(20'000));
  EXPECT_GE(flow.transfers(), 36U);
}

TEST(Flow, NeverPassesTheMost) {
  Flow flow({.first_transfers = 16, .max_transfers = 20});
  Link link(flow, [](unsigned transfers) { return 1e6 * transfers; });
  link.run(Millis(10'000));
  EXPECT_EQ(flow.transfers(), 20U);
}

TEST(Flow, DoesNotClimbForReadersThatWantNoMore) {
  Flow flow({.first_transfers = 16, .max_transfers = 48});
  SteadyTime now{std::chrono::hours(50)};
  for (int i = 0; i < 1'000; i++) flow.received(kMiB, now += Millis(10));
  EXPECT_EQ(flow.transfers(), 16U);
}

TEST(Flow, A429HalvesOnceASecond) {
  Flow flow({.first_transfers = 16, .max_transfers = 48});
  Link link(flow, [](unsigned transfers) { return 1e6 * transfers; });
  for (int i = 0; i < 5; i++) flow.ended(Flow::End::limited, link.now());
  EXPECT_EQ(flow.transfers(), 8U);
  link.run(Millis(5'000));
  EXPECT_EQ(flow.transfers(), 8U) << "climbs too soon";
  for (int i = 0; i < 20; i++) {
    link.run(Millis(1'100));
    flow.ended(Flow::End::limited, link.now());
  }
  EXPECT_EQ(flow.transfers(), 2U);
  link.run(Millis(60'000));
  EXPECT_EQ(flow.transfers(), 48U);
}

TEST(Flow, AStallTakesAQuarter) {
  Flow flow({.first_transfers = 16, .max_transfers = 48});
  flow.ended(Flow::End::stalled, SteadyTime{std::chrono::hours(1)});
  EXPECT_EQ(flow.transfers(), 12U);
  flow.ended(Flow::End::other, SteadyTime{std::chrono::hours(2)});
  EXPECT_EQ(flow.transfers(), 12U);
}

constexpr uint64_t kMuch = kGiB;

TEST(Flow, RangesFitLatencyAndRate) {
  const auto range = [](int first_byte_ms, double mb_per_s) {
    Flow flow({.first_transfers = 16, .max_transfers = 48});
    EXPECT_EQ(flow.range_bytes(kMuch, 0), 4 * kMiB);  // before anything is known
    for (int i = 0; i < 30; i++)
      flow.measured(Millis(first_byte_ms), Millis(100), static_cast<uint64_t>(mb_per_s * 1e5));
    return flow.range_bytes(kMuch, 0);
  };
  EXPECT_EQ(range(30, 25), 5 * kMiB);
  EXPECT_EQ(range(1, 1), 1 * kMiB);      // near and thin
  EXPECT_EQ(range(300, 100), 8 * kMiB);  // far and fat: 16 of them share 128 MiB
  EXPECT_EQ(range(1, 400), 7 * kMiB);    // 20 ms
}

TEST(Flow, FewTransfersMayBeLarge) {
  Flow flow({.first_transfers = 4, .max_transfers = 8});
  for (int i = 0; i < 30; i++) flow.measured(Millis(300), Millis(100), 10'000'000);
  EXPECT_EQ(flow.range_bytes(kMuch, 0), 16 * kMiB);
}

TEST(Flow, FreeTransfersShareWhatIsWanted) {
  Flow flow({.first_transfers = 16, .max_transfers = 48});
  EXPECT_EQ(flow.range_bytes(2 * kMiB, 0), 1 * kMiB);
  EXPECT_EQ(flow.range_bytes(32 * kMiB, 0), 2 * kMiB);
  for (int i = 0; i < 14; i++) flow.started();
  EXPECT_EQ(flow.range_bytes(4 * kMiB, 0), 2 * kMiB);
  EXPECT_EQ(flow.range_bytes(4 * kMiB, 10), 4 * kMiB);  // none is free
  // Where one transfer is fast, few are better.
  for (int i = 0; i < 30; i++) flow.measured(Millis(1), Millis(100), 20'000'000);
  EXPECT_EQ(flow.range_bytes(4 * kMiB, 0), 3 * kMiB);
}

}  // namespace
}  // namespace cake
