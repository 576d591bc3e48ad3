#include "tools/block_sharing.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace cake {
namespace {

class IsUnchangedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(write_file_atomically(path_, as_bytes("hashed")));
    // Times of files move on by ticks; a second write has to fall into another.
    const timespec long_ago[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, path_.c_str(), long_ago, 0), 0);
    ASSERT_EQ(::stat(path_.c_str(), &seen_), 0);
  }

  TempDir dir_;
  const std::string path_ = dir_ / "w.bin";
  struct stat seen_ {};
};

TEST_F(IsUnchangedTest, ReadingChangesNothing) {
  EXPECT_EQ(*read_text_file(path_, 100), "hashed");
  EXPECT_TRUE(is_unchanged(path_, seen_));
}

// `import --replace` writes the whole file beside it before it renames: minutes, for large ones.
TEST_F(IsUnchangedTest, SeesAWriteOfTheSameLength) {
  const auto file = File::open(path_, File::Mode::read_write);
  ASSERT_TRUE(file && file->write_at(0, as_bytes("edited")));
  EXPECT_FALSE(is_unchanged(path_, seen_));
}

TEST_F(IsUnchangedTest, SeesAnotherFileInItsPlace) {
  ASSERT_TRUE(write_file_atomically(path_, as_bytes("edited")));
  EXPECT_FALSE(is_unchanged(path_, seen_));
}

TEST_F(IsUnchangedTest, SeesThatItIsGone) {
  ASSERT_TRUE(remove_file(path_));
  EXPECT_FALSE(is_unchanged(path_, seen_));
}

}  // namespace
}  // namespace cake
