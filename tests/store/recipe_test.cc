#include "store/recipe.h"

#include <gtest/gtest.h>

#include "tests/support/store_fixture.h"
#include "tests/support/temp_dir.h"

namespace cake {
namespace {

Buffer safetensors_head(const std::string& json) {
  Buffer head(8);
  store_le(head.data(), static_cast<uint64_t>(json.size()));
  const ByteSpan bytes = as_bytes(json);
  head.insert(head.end(), bytes.begin(), bytes.end());
  return head;
}

TEST(Recipe, IsCutAgainFromItsHead) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const Buffer head =
      safetensors_head(R"({"a":{"dtype":"U8","shape":[1500000],"data_offsets":[0,1500000]},)"
                       R"("b":{"dtype":"BF16","shape":[100],"data_offsets":[1500000,1500200]}})");
  const uint64_t bytes = head.size() + 1'500'200;
  const RowId id = fixture.content("model.safetensors", bytes);
  const ContentRow content = *must(fixture.index().find_content(id));
  EXPECT_FALSE(must(load_recipe(fixture.index(), content)));

  const Cut cut = cut_file(Cutter::safetensors, head, bytes);
  ASSERT_EQ(cut.cutter, Cutter::safetensors) << cut.refusal;
  Buffer longer = head;
  longer.resize(head.size() + 5000);  // the caller read more than the header
  must(begin_recipe(fixture.store(), content, cut, longer));
  EXPECT_EQ(must(fixture.index().find_recipe(id))->head, head);

  const Buffer third = random_bytes(3, 200);
  fixture.put(id, 3, third);
  must(fixture.chunks().flush());
  const auto recipe = must(load_recipe(fixture.index(), content));
  ASSERT_TRUE(recipe);
  EXPECT_EQ(recipe->cutter, Cutter::safetensors);
  ASSERT_EQ(recipe->extents.count(), 4u);
  EXPECT_EQ(recipe->extents.at(3).length, 200u);
  EXPECT_EQ(recipe->extents.at(3).dtype, Dtype::bf16);
  const auto digests = must(fixture.index().find_digests(id, 0, recipe->extents.count()));
  EXPECT_TRUE(digests[0].is_zero());
  EXPECT_EQ(digests[3], blake3(third));
}

TEST(Recipe, OfUniformFileNeedsNoHead) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId id = fixture.content("a.bin", 2 * kMiB + 1);
  const ContentRow content = *must(fixture.index().find_content(id));
  must(begin_recipe(fixture.store(), content, cut_file(Cutter::uniform, {}, content.bytes),
                    random_bytes(1, 100)));
  EXPECT_TRUE(must(fixture.index().find_recipe(id))->head.empty());
  EXPECT_EQ(must(load_recipe(fixture.index(), content))->extents.count(), 3u);
}

// Nobody looks through 2^35 extents.
TEST(Recipe, OfImpossibleFileIsCorrupt) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  ContentRow content = *must(fixture.index().find_content(fixture.content("a.bin", kMiB)));
  must(begin_recipe(fixture.store(), content, cut_file(Cutter::uniform, {}, kMiB), {}));
  content.bytes = kMaxContentBytes;
  EXPECT_TRUE(must(load_recipe(fixture.index(), content)));
  content.bytes = uint64_t{1} << 55;
  EXPECT_EQ(load_recipe(fixture.index(), content).error().code, Errc::corrupt);
}

TEST(Recipe, WhoseHeadDoesNotParseIsCorrupt) {
  TempDir dir;
  StoreFixture fixture(dir.path());
  const RowId id = fixture.content("model.safetensors", 1000);
  must(fixture.index().put_recipe(id, {Cutter::safetensors, random_bytes(1, 100)}));
  const auto recipe = load_recipe(fixture.index(), *must(fixture.index().find_content(id)));
  ASSERT_FALSE(recipe);
  EXPECT_EQ(recipe.error().code, Errc::corrupt);
}

}  // namespace
}  // namespace cake
