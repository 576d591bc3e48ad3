#include "store/base/part_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <climits>
#include <filesystem>

#include "tests/support/temp_dir.h"

namespace cake {
namespace {

PartFile make_part(const std::string& target) {
  Result<PartFile> part = PartFile::create(target);
  EXPECT_TRUE(part) << part.error().message;
  return std::move(part).value();
}

TEST(PartFile, LiesHiddenBesideItsTarget) {
  const TempDir dir;
  const PartFile part = make_part(dir / "config.json");
  const std::filesystem::path path(part.file().path());
  EXPECT_EQ(path.parent_path(), dir.path());
  EXPECT_TRUE(path.filename().string().starts_with(".config.json."));
  EXPECT_TRUE(path.filename().string().ends_with(".part"));
}

// A file of a hub may have a name of 255 bytes; with more in front and behind it there is no
// directory entry for it.
TEST(PartFile, LongNamesHaveRoom) {
  const TempDir dir;
  for (size_t length = 220; length <= NAME_MAX; length++) {
    PartFile part = make_part(dir / std::string(length, 'n'));
    EXPECT_TRUE(part.publish());
    EXPECT_TRUE(path_exists(dir / std::string(length, 'n')));
  }
}

// Two writers whose process ids are the same, as they are in containers.
TEST(PartFile, TwoOfOneTargetAreTwoFiles) {
  const TempDir dir;
  PartFile one = make_part(dir / "x.bin");
  const PartFile other = make_part(dir / "x.bin");
  ASSERT_TRUE(one.file().write_at(0, as_bytes("whole")));
  ASSERT_TRUE(other.file().write_at(0, as_bytes("ha")));
  ASSERT_TRUE(one.publish());
  EXPECT_EQ(*read_text_file(dir / "x.bin", 100), "whole");
}

TEST(PartFile, IsGoneUnlessPublished) {
  const TempDir dir;
  {
    PartFile part = make_part(dir / "x.bin");
    const PartFile moved = std::move(part);
    EXPECT_TRUE(path_exists(moved.file().path()));
  }
  EXPECT_TRUE(list_directory(dir.path())->empty());
}

TEST(PartFile, OnlyAbandonedOnesOfTheTargetAreRemoved) {
  const TempDir dir;
  const std::string long_name(NAME_MAX, 'n');
  const std::vector<std::string> targets = {dir / "x.bin", dir / long_name, dir / "absent/y.bin"};
  const PartFile written = make_part(dir / "x.bin");
  const PartFile of_another = make_part(dir / "x.bin.old");
  const auto leave_behind = [](const std::string& target) {
    PartFile part = make_part(target);
    std::string left = part.file().path();
    // The name survives the writer, as it does when that is killed.
    EXPECT_EQ(::link(left.c_str(), (left + "~").c_str()), 0);
    { const PartFile ends = std::move(part); }
    EXPECT_EQ(::rename((left + "~").c_str(), left.c_str()), 0);
    return left;
  };
  const std::string killed = leave_behind(dir / "x.bin");
  const std::string killed_long = leave_behind(dir / long_name);
  const std::string killed_other = leave_behind(dir / "y.bin");
  ASSERT_TRUE(write_file_atomically(dir / ".x.bin.notes.part", as_bytes("the user's")));
  remove_abandoned_parts(targets);
  EXPECT_FALSE(path_exists(killed));
  EXPECT_FALSE(path_exists(killed_long));
  EXPECT_TRUE(path_exists(killed_other));
  EXPECT_TRUE(path_exists(written.file().path()));
  EXPECT_TRUE(path_exists(of_another.file().path()));
  EXPECT_TRUE(path_exists(dir / ".x.bin.notes.part"));
}

}  // namespace
}  // namespace cake
