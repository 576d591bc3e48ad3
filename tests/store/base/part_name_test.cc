#include "store/base/part_name.h"

#include <gtest/gtest.h>

#include <climits>
#include <filesystem>

namespace cake {
namespace {

TEST(PartName, LiesHiddenBesideItsTarget) {
  const std::filesystem::path part(part_name("/models/a/config.json"));
  EXPECT_EQ(part.parent_path(), "/models/a");
  EXPECT_TRUE(part.filename().string().starts_with(".config.json."));
  EXPECT_TRUE(part.filename().string().ends_with(".part"));
}

// A file of a hub may have a name of 255 bytes; with more in front and behind it there is no
// directory entry for it.
TEST(PartName, LongNamesHaveRoomAndDiffer) {
  for (size_t length = 230; length <= NAME_MAX; length++) {
    const std::string name(length - 1, 'n');
    const std::string part = part_name("/models/" + name + "a");
    EXPECT_LE(std::filesystem::path(part).filename().string().size(), size_t{NAME_MAX});
    EXPECT_TRUE(part.ends_with(".part"));
    EXPECT_EQ(part, part_name("/models/" + name + "a"));
    EXPECT_NE(part, part_name("/models/" + name + "b"));
  }
}

}  // namespace
}  // namespace cake
