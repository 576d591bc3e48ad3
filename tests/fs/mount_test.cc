#include "fs/mount.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

TEST(GenericOptions, AreTakenAsMountPassesThem) {
  MountOptions options;
  for (const char* word : {"ro", "rw", "nosuid", "nodev", "_netdev", "nofail", "user", "relatime",
                           "x-systemd.automount", "comment=hello", "noauto", "defaults"})
    EXPECT_TRUE(take_generic_option(options, word)) << word;
  EXPECT_FALSE(options.is_noexec || options.is_noatime || options.allow_other);
  EXPECT_TRUE(take_generic_option(options, "noexec"));
  EXPECT_TRUE(take_generic_option(options, "noatime"));
  EXPECT_TRUE(take_generic_option(options, "allow_other"));
  EXPECT_TRUE(options.is_noexec && options.is_noatime && options.allow_other);
}

TEST(GenericOptions, LeaveOthersToTheirOwner) {
  MountOptions options;
  for (const char* word : {"", "rev=main", "roo", "hard", "uid=3"})
    EXPECT_FALSE(take_generic_option(options, word)) << word;
}

TEST(PrepareMountPoint, WantsADirectory) {
  EXPECT_EQ(prepare_mount_point("/nonexistent/x").error().code, Errc::not_found);
  EXPECT_EQ(prepare_mount_point("/etc/passwd").error().code, Errc::invalid);
}

TEST(PrepareMountPoint, IsCanonical) {
  EXPECT_EQ(*prepare_mount_point("/proc/../usr/./bin//"), *prepare_mount_point("/usr/bin"));
}

}  // namespace
}  // namespace cake
