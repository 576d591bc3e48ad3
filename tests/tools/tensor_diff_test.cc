#include "tools/tensor_diff.h"

#include <gtest/gtest.h>

#include "tests/support/store_fixture.h"

namespace cake {
namespace {

TEST(BitDifference, CountsBitsAndEstimatesTheirEntropy) {
  const Buffer a = random_bytes(1, 64 * kKiB);
  BitDifference same(2);
  same.add(a, a);
  EXPECT_EQ(same.bits(), 0u);
  EXPECT_EQ(same.delta_bytes(), 0u);

  // One low bit of every second element: half a byte's worth of uncertainty in 16 bits.
  Buffer near = a;
  for (size_t i = 0; i < near.size(); i += 4) near[i] ^= std::byte{1};
  BitDifference few(2);
  few.add(a, near);
  EXPECT_EQ(few.bits(), a.size() / 4);
  EXPECT_NEAR(static_cast<double>(few.delta_bytes()), static_cast<double>(a.size()) / 16, 8);

  BitDifference unrelated(2);
  unrelated.add(a, random_bytes(2, 64 * kKiB));
  EXPECT_NEAR(static_cast<double>(unrelated.bits()), static_cast<double>(a.size()) * 4,
              static_cast<double>(a.size()) / 10);
  EXPECT_GT(unrelated.delta_bytes(), a.size() * 9 / 10);
}

TEST(BitDifference, TakesOddElementsAsBytes) {
  BitDifference difference(0);
  const Buffer a(3, std::byte{0}), b(3, std::byte{255});
  difference.add(a, b);
  EXPECT_EQ(difference.bits(), 24u);
  EXPECT_EQ(difference.bytes(), 3u);
}

TEST(TensorHash, FollowsTheSchemeOfTheManual) {
  Tensor tensor;
  tensor.dtype_name = "BF16";
  tensor.shape = {2, 3};
  const Digest extent = blake3(as_bytes("extent"));
  Buffer input = to_buffer(as_bytes("cake-v0 tensor\nBF16\n2,3\n"));
  input.insert(input.end(), extent.bytes.begin(), extent.bytes.end());
  EXPECT_EQ(tensor_hash(tensor, {extent}), blake3(input));
  EXPECT_EQ(file_hash(0, {}), blake3(as_bytes("cake-v0 file\n0\n")));
}

TEST(TensorHash, ShapesAsText) {
  EXPECT_EQ(shape_text({}), "scalar");
  EXPECT_EQ(shape_text({4096, 14336}), "4096x14336");
  EXPECT_EQ(element_count({}), 1u);
  EXPECT_EQ(element_count({UINT64_MAX, 2}), UINT64_MAX);
}

}  // namespace
}  // namespace cake
