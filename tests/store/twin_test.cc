#include "store/twin.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "store/coverage.h"
#include "store/verify.h"
#include "tests/support/content_fixture.h"

namespace cake {
namespace {

class TwinTest : public ::testing::Test {
 protected:
  uint64_t adopt(RowId id) {
    return must(adopt_twin(fixture_.store(), *must(fixture_.index().find_content(id))));
  }

  TempDir dir_;
  StoreFixture fixture_{dir_.path()};
  const Buffer bytes_ = random_bytes(1, 3 * kMiB + 9);
};

TEST_F(TwinTest, VerifiedFileServesAnotherSource) {
  const ContentRow first = true_content(fixture_.store(), "hf:a", "w.bin", bytes_);
  const ContentRow second = true_content(fixture_.store(), "hf:b", "other.bin", bytes_);
  ASSERT_NE(first.id, second.id);
  store_bytes(fixture_, first, bytes_);
  ASSERT_EQ(must(check_content(fixture_.store(), first, {})).state, ContentCheck::State::verified);

  EXPECT_EQ(must(twin_bytes(fixture_.index(), second)), bytes_.size());
  EXPECT_FALSE(must(missing_ranges(fixture_.index(), second)).empty()) << "only counted";
  EXPECT_EQ(adopt(second.id), bytes_.size());
  EXPECT_TRUE(must(missing_ranges(fixture_.index(), second)).empty());
  EXPECT_EQ(must(check_content(fixture_.store(), second, {})).state, ContentCheck::State::verified);
}

// What a hub merely claims is no proof: the other file has to have been compared here.
TEST_F(TwinTest, UnverifiedFileServesNobody) {
  const ContentRow first = true_content(fixture_.store(), "hf:a", "w.bin", bytes_);
  const ContentRow second = true_content(fixture_.store(), "hf:b", "w.bin", bytes_);
  store_bytes(fixture_, first, bytes_);
  EXPECT_EQ(must(twin_bytes(fixture_.index(), second)), 0u);
  EXPECT_EQ(adopt(second.id), 0u);
  EXPECT_FALSE(must(missing_ranges(fixture_.index(), second)).empty());
}

TEST_F(TwinTest, AnotherCutIsLeftAlone) {
  const ContentRow first = true_content(fixture_.store(), "hf:a", "w.bin", bytes_);
  const ContentRow second = true_content(fixture_.store(), "hf:b", "w.bin", bytes_);
  store_bytes(fixture_, first, bytes_);
  must(check_content(fixture_.store(), first, {}));
  must(fixture_.index().put_recipe(second.id, {Cutter::safetensors, random_bytes(1, 100)}));
  EXPECT_EQ(must(twin_bytes(fixture_.index(), second)), 0u);
  EXPECT_EQ(adopt(second.id), 0u);
}

TEST_F(TwinTest, SurvivesALostIndex) {
  const ContentRow first = true_content(fixture_.store(), "hf:a", "w.bin", bytes_);
  const ContentRow second = true_content(fixture_.store(), "hf:b", "w.bin", bytes_);
  store_bytes(fixture_, first, bytes_);
  must(check_content(fixture_.store(), first, {}));
  ASSERT_EQ(adopt(second.id), bytes_.size());
  must(fixture_.chunks().flush());

  TempDir copy;
  must(make_directories(copy.path() + "/packs"));
  for (const std::string& name : must(list_directory(dir_.path() + "/packs"))) {
    std::error_code failure;
    std::filesystem::copy_file(dir_.path() + "/packs/" + name, copy.path() + "/packs/" + name,
                               failure);
    ASSERT_FALSE(failure) << failure.message();
  }
  StoreFixture rebuilt(copy.path());
  const ContentRow again = true_content(rebuilt.store(), "hf:b", "w.bin", bytes_);
  EXPECT_TRUE(must(missing_ranges(rebuilt.index(), again)).empty());
}

}  // namespace
}  // namespace cake
