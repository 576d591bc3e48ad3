#include "fs/mount_record.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

TEST(MountRecord, GoesThereAndBack) {
  MountRecord record;
  record.keeper.pid = 12;
  record.worker_pid = 13;
  record.generation = 4;
  record.upgrades = 2;
  record.device_minor = 40;
  record.source = "hf:a b\nkeeper 99";
  record.store = "";
  record.mount_point = "/mnt/\\x y";
  record.program = "/usr/bin/cake";
  const auto parsed = parse_record(format_record(record));
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->keeper.pid, 12);
  EXPECT_EQ(parsed->worker_pid, 13);
  EXPECT_EQ(parsed->generation, 4u);
  EXPECT_EQ(parsed->upgrades, 2u);
  EXPECT_EQ(parsed->device_minor, 40u);
  EXPECT_EQ(parsed->source, record.source);
  EXPECT_EQ(parsed->store, "");
  EXPECT_EQ(parsed->mount_point, record.mount_point);
  EXPECT_EQ(parsed->program, record.program);
}

TEST(ProcessIdentity, TellsWhoHasTheNumberNow) {
  using Presence = ProcessIdentity::Presence;
  const ProcessIdentity own = ProcessIdentity::own();
  EXPECT_GT(own.started_at, 0u);
  EXPECT_EQ(own.presence(), Presence::alive);
  EXPECT_TRUE(own.open().is_open());
  ProcessIdentity earlier = own;
  earlier.started_at--;
  EXPECT_EQ(earlier.presence(), Presence::gone);
  EXPECT_FALSE(earlier.open().is_open());
  ProcessIdentity other = own;
  other.pid_namespace++;
  EXPECT_EQ(other.presence(), Presence::elsewhere);
  EXPECT_FALSE(other.open().is_open());
  EXPECT_EQ(start_time_of("1 (a ) b) S 1 1 1 0 -1 4 0 0 0 0 1 2 0 0 20 0 1 0 77 5"), 77u);
  EXPECT_EQ(start_time_of("1 (a) S 1"), 0u);
}

TEST(MountRecord, IgnoresWhatANewerKeeperWrites) {
  EXPECT_TRUE(parse_record("keeper 1\ncolour blue\nmount_point /a\n"));
}

TEST(MountRecord, IncompleteOneIsNone) {
  for (const char* bad : {"", "keeper 1\n", "mount_point /a\n", "keeper x\nmount_point /a\n"})
    EXPECT_FALSE(parse_record(bad)) << bad;
}

TEST(MountRecord, NoneForAnOrdinaryDirectory) {
  EXPECT_EQ(find_mount_record("/usr").error().code, Errc::not_found);
  EXPECT_EQ(end_mount("/usr", false, Deadline::never()).error().code, Errc::not_found);
}

}  // namespace
}  // namespace cake
