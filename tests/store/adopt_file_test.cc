#include "store/adopt_file.h"

#include <gtest/gtest.h>

#include "store/coverage.h"
#include "store/verify.h"
#include "tests/support/content_fixture.h"

namespace cake {
namespace {

using State = Adoption::State;

File file_with(const TempDir& dir, ByteSpan bytes) {
  const std::string path = dir.path() + "/plain";
  must(write_file_atomically(path, bytes));
  return must(File::open(path, File::Mode::read));
}

TEST(AdoptFile, TakesAFileWithTheRightHash) {
  TempDir dir, store_dir;
  StoreFixture fixture(store_dir.path());
  const Buffer bytes = random_bytes(1, 5 * kMiB + 3);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  const Adoption done = must(adopt_file(fixture.store(), content, file_with(dir, bytes), {}));
  EXPECT_EQ(done.state, State::adopted);
  EXPECT_EQ(done.new_bytes, bytes.size());
  const ContentRow now = *must(fixture.index().find_content(content.id));
  EXPECT_TRUE(now.verified);
  EXPECT_TRUE(must(missing_ranges(fixture.index(), now)).empty());
  EXPECT_EQ(must(check_content(fixture.store(), now, {})).state, ContentCheck::State::verified);
  EXPECT_EQ(must(adopt_file(fixture.store(), now, file_with(dir, bytes), {})).state,
            State::already_here);
}

TEST(AdoptFile, GoesOnFromWhatIsHere) {
  TempDir dir, store_dir;
  StoreFixture fixture(store_dir.path());
  const Buffer bytes = random_bytes(2, 4 * kMiB);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  store_bytes(fixture, content, bytes, {3});
  const Adoption done = must(adopt_file(fixture.store(), content, file_with(dir, bytes), {}));
  EXPECT_EQ(done.state, State::adopted);
  EXPECT_EQ(done.new_bytes, kMiB);
}

TEST(AdoptFile, TakesNothingOfAFileThatLies) {
  TempDir dir, store_dir;
  StoreFixture fixture(store_dir.path());
  Buffer bytes = random_bytes(3, 2 * kMiB);
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", bytes);
  bytes.back() ^= std::byte{1};
  EXPECT_EQ(must(adopt_file(fixture.store(), content, file_with(dir, bytes), {})).state,
            State::mismatch);
  bytes.pop_back();
  EXPECT_EQ(must(adopt_file(fixture.store(), content, file_with(dir, bytes), {})).state,
            State::mismatch);
  EXPECT_FALSE(must(fixture.index().find_recipe(content.id)));
  EXPECT_EQ(must(fixture.index().cached(content.id)).bytes, 0u);
}

TEST(AdoptFile, EmptyFile) {
  TempDir dir, store_dir;
  StoreFixture fixture(store_dir.path());
  const ContentRow content = true_content(fixture.store(), "hf:a", "w.bin", {});
  EXPECT_EQ(must(adopt_file(fixture.store(), content, file_with(dir, {}), {})).state,
            State::adopted);
  EXPECT_TRUE(must(fixture.index().find_content(content.id))->verified);
}

}  // namespace
}  // namespace cake
