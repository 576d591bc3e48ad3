#include "fs/mount_record.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

TEST(MountRecord, GoesThereAndBack) {
  MountRecord record;
  record.keeper_pid = 12;
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
  EXPECT_EQ(parsed->keeper_pid, 12);
  EXPECT_EQ(parsed->worker_pid, 13);
  EXPECT_EQ(parsed->generation, 4u);
  EXPECT_EQ(parsed->upgrades, 2u);
  EXPECT_EQ(parsed->device_minor, 40u);
  EXPECT_EQ(parsed->source, record.source);
  EXPECT_EQ(parsed->store, "");
  EXPECT_EQ(parsed->mount_point, record.mount_point);
  EXPECT_EQ(parsed->program, record.program);
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
