#include "fs/parking.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <optional>

#include "tests/support/eventually.h"

namespace cake {
namespace {

// Never looked into: nothing here answers.
fuse_req_t some_request() {
  static int request = 0;
  return reinterpret_cast<fuse_req_t>(&request);
}

TEST(ParkingLot, ARequestIsClaimedOnce) {
  ParkingLot lot;
  const ParkedPtr parked = lot.park(some_request(), getpid());
  EXPECT_EQ(lot.size(), 1u);
  {
    const ClaimedRequest mine = parked->claim();
    EXPECT_EQ(static_cast<fuse_req_t>(mine), some_request());
    EXPECT_EQ(static_cast<fuse_req_t>(parked->claim()), nullptr);
  }
  EXPECT_EQ(static_cast<fuse_req_t>(parked->claim()), nullptr);
  EXPECT_EQ(lot.size(), 0u);
}

// `umount -f` with reads parked: what they wait for ends when the file system is gone.
TEST(ParkingLot, WhatComesWhenTheLotIsGoneAnswersNothing) {
  std::optional<ParkingLot> lot;
  lot.emplace();
  const ParkedPtr parked = lot->park(some_request(), getpid());
  lot.reset();
  EXPECT_EQ(static_cast<fuse_req_t>(parked->claim()), nullptr);
}

TEST(ParkingLot, AClosedOneGivesNothingOut) {
  ParkingLot lot;
  const ParkedPtr before = lot.park(some_request(), getpid());
  lot.close();
  const ParkedPtr after = lot.park(some_request(), getpid());
  EXPECT_EQ(static_cast<fuse_req_t>(before->claim()), nullptr);
  EXPECT_EQ(static_cast<fuse_req_t>(after->claim()), nullptr);
  EXPECT_EQ(lot.size(), 0u);
}

// The session is destroyed next, and the answer needs it.
TEST(ParkingLot, CloseWaitsForWhoIsAnswering) {
  ParkingLot lot;
  const ParkedPtr parked = lot.park(some_request(), getpid());
  const ParkedPtr waiting = lot.park(some_request(), getpid());
  std::atomic<bool> is_answered{false};
  std::optional<std::thread> closing;
  {
    const ClaimedRequest mine = parked->claim();
    closing.emplace([&] {
      lot.close();
      EXPECT_TRUE(is_answered.load());
    });
    EXPECT_TRUE(eventually([&] { return lot.size() == 0; }));
    is_answered.store(true);
  }
  closing->join();
  EXPECT_EQ(static_cast<fuse_req_t>(waiting->claim()), nullptr);
}

}  // namespace
}  // namespace cake
