#include "fs/mountinfo.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

TEST(Mountinfo, ReadsLinesWithAndWithoutOptionalFields) {
  const auto mounts = parse_mountinfo(
      "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
      "65 27 0:40 / /mnt/a\\040b ro,nosuid shared:1 master:2 - fuse.cakefs hf:x\\134y "
      "ro,user_id=0\n");
  ASSERT_EQ(mounts.size(), 2u);
  EXPECT_EQ(mounts[0].type, "proc");
  EXPECT_EQ(mounts[1].device_minor, 40u);
  EXPECT_EQ(mounts[1].mount_point, "/mnt/a b");
  EXPECT_EQ(mounts[1].type, kMountType);
  EXPECT_EQ(mounts[1].source, "hf:x\\y");
  EXPECT_EQ(mounts[1].super_options, "ro,user_id=0");
}

TEST(Mountinfo, LeavesMalformedLinesOut) {
  for (const char* bad : {"", "\n\n", "1 2 3", "1 2 x:y / /a rw - t s o", "1 2 0:1 / /a rw - t s",
                          "1 2 0:1 / /a rw - ", "1 2 0:99999999999 / /a rw - t s o"})
    EXPECT_TRUE(parse_mountinfo(bad).empty()) << bad;
}

TEST(Mountinfo, TopMountIsTheLastOne) {
  const auto mounts = parse_mountinfo(
      "1 0 0:1 / /a rw - x x rw\n2 0 0:2 / /a rw - y y rw\n3 0 0:3 / /a/b rw - z z rw\n");
  EXPECT_EQ(find_top_mount(mounts, "/a")->type, "y");
  EXPECT_EQ(find_top_mount(mounts, "/c"), nullptr);
}

TEST(Mountinfo, ReadsItsOwnNamespace) {
  const auto mounts = read_mountinfo();
  ASSERT_TRUE(mounts);
  EXPECT_NE(find_top_mount(*mounts, "/proc"), nullptr);
}

TEST(OctalEscapes, GoThereAndBack) {
  const std::string text = "a b\tc\nd\\e#f\\040";
  EXPECT_EQ(unescape_octal(escape_octal(text)), text);
  EXPECT_EQ(unescape_octal("\\04"), "\\04");
  EXPECT_EQ(unescape_octal("\\"), "\\");
}

}  // namespace
}  // namespace cake
