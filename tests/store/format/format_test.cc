#include "store/format/format.h"

#include <gtest/gtest.h>

#include <random>

#include "store/format/safetensors.h"

namespace cake {
namespace {

Layout layout_of(uint64_t header_bytes, const std::vector<uint64_t>& tensor_bytes) {
  Layout layout;
  layout.header_bytes = header_bytes;
  uint64_t offset = header_bytes;
  for (const uint64_t length : tensor_bytes) {
    Tensor tensor;
    tensor.dtype = Dtype::bf16;
    tensor.range = {offset, length};
    layout.tensors.push_back(tensor);
    offset += length;
  }
  return layout;
}

uint64_t file_bytes_of(const Layout& layout) {
  return layout.tensors.empty() ? layout.header_bytes : layout.tensors.back().range.end();
}

// Every byte is in one extent, extents are in order and at most 1 MiB, and find and run_of agree.
void expect_covers(const Extents& extents, uint64_t file_bytes) {
  EXPECT_EQ(extents.file_bytes(), file_bytes);
  uint64_t end = 0;
  for (size_t i = 0; i < extents.count(); i++) {
    const Extent extent = extents.at(i);
    ASSERT_EQ(extent.offset, end) << i;
    ASSERT_GE(extent.length, 1u) << i;
    ASSERT_LE(extent.length, kChunkBytes) << i;
    end = extent.end();
    ASSERT_EQ(extents.find(extent.offset), i);
    ASSERT_EQ(extents.find(end - 1), i);
    const ByteRange run = extents.run_of(i);
    ASSERT_LE(run.offset, extent.offset);
    ASSERT_GE(run.end(), end);
    // Cuts count from the start of the run; only its last extent is short.
    ASSERT_EQ((extent.offset - run.offset) % kChunkBytes, 0u);
    ASSERT_TRUE(extent.length == kChunkBytes || end == run.end());
  }
  EXPECT_EQ(end, file_bytes);
}

TEST(Extents, CutsAFileUniformly) {
  EXPECT_EQ(Extents::uniform(0).count(), 0u);
  EXPECT_EQ(Extents().count(), 0u);
  EXPECT_EQ(Extents::uniform(1).count(), 1u);
  EXPECT_EQ(Extents::uniform(kChunkBytes).count(), 1u);
  EXPECT_EQ(Extents::uniform(kChunkBytes + 1).count(), 2u);
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, kChunkBytes, 3 * kChunkBytes + 5})
    expect_covers(Extents::uniform(bytes), bytes);
}

TEST(Extents, HoldsTheLargestFileInConstantMemory) {
  const Extents extents = Extents::uniform(UINT64_MAX);
  EXPECT_EQ(extents.count(), uint64_t{1} << 44);
  EXPECT_EQ(extents.find(UINT64_MAX - 1), extents.count() - 1);
  EXPECT_EQ(extents.at(extents.count() - 1).length, kChunkBytes - 1);
}

TEST(Extents, CutsAnewAtEachTensor) {
  const Layout layout = layout_of(100, {kChunkBytes + 7, 0, 3, 0});
  const Extents extents = Extents::from_layout(layout, file_bytes_of(layout));
  ASSERT_EQ(extents.count(), 4u);
  EXPECT_EQ(extents.at(0).dtype, Dtype::bytes);
  EXPECT_EQ(extents.at(0).length, 100u);
  EXPECT_EQ(extents.at(1).dtype, Dtype::bf16);
  EXPECT_EQ(extents.at(1).offset, 100u);
  EXPECT_EQ(extents.at(2).length, 7u);
  EXPECT_EQ(extents.at(3).length, 3u);
  EXPECT_EQ(extents.run_of(2), (ByteRange{100, kChunkBytes + 7}));
  EXPECT_EQ(extents.run_of(3), (ByteRange{100 + kChunkBytes + 7, 3}));
}

TEST(Extents, CoverAnyLayoutExactly) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 300; round++) {
    std::vector<uint64_t> lengths(random() % 30);
    for (uint64_t& length : lengths) {
      const uint64_t around = (random() % 4) * kChunkBytes;
      const uint64_t wobble = random() % 3 == 0 ? random() % kChunkBytes : random() % 3;
      length = random() % 4 == 0 ? 0 : around + wobble;
    }
    const Layout layout = layout_of(8 + random() % (2 * kChunkBytes), lengths);
    const uint64_t file_bytes = file_bytes_of(layout);
    const Extents extents = Extents::from_layout(layout, file_bytes);
    ASSERT_NO_FATAL_FAILURE(expect_covers(extents, file_bytes)) << round;
    for (const Tensor& tensor : layout.tensors) {
      if (tensor.range.length == 0) continue;
      ASSERT_EQ(extents.run_of(extents.find(tensor.range.offset)), tensor.range);
    }
    const uint64_t any = random() % file_bytes;
    const Extent found = extents.at(extents.find(any));
    ASSERT_TRUE(found.offset <= any && any < found.end());
  }
}

TEST(Format, AsksForACutterByName) {
  EXPECT_EQ(wanted_cutter("a/model.safetensors"), Cutter::safetensors);
  EXPECT_EQ(wanted_cutter("model.safetensors.index.json"), Cutter::uniform);
  EXPECT_EQ(wanted_cutter("safetensors"), Cutter::uniform);
  EXPECT_EQ(wanted_cutter(""), Cutter::uniform);
}

Buffer small_file() {
  const std::string json = R"({"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}})";
  Buffer file(8);
  store_le(file.data(), uint64_t{json.size()});
  for (const std::byte byte : as_bytes(json)) file.push_back(byte);
  file.resize(file.size() + 16);
  return file;
}

TEST(Format, AsksForTheHeadStepByStep) {
  const Buffer file = small_file();
  const ByteSpan bytes = file;
  EXPECT_EQ(head_bytes_needed(Cutter::uniform, {}, file.size()), 0u);
  EXPECT_EQ(head_bytes_needed(Cutter::safetensors, {}, file.size()), 8u);
  EXPECT_EQ(head_bytes_needed(Cutter::safetensors, bytes.first(7), file.size()), 8u);
  EXPECT_EQ(head_bytes_needed(Cutter::safetensors, bytes.first(8), file.size()), 68u);
  EXPECT_EQ(head_bytes_needed(Cutter::safetensors, bytes.first(67), file.size()), 68u);
  EXPECT_EQ(head_bytes_needed(Cutter::safetensors, bytes.first(68), file.size()), 0u);
  // Too short to be one, or a length that is refused: nothing more can change the answer.
  EXPECT_EQ(head_bytes_needed(Cutter::safetensors, {}, 7), 0u);
  EXPECT_EQ(head_bytes_needed(Cutter::safetensors, bytes.first(8), 67), 0u);
}

TEST(Format, CutsASafetensorsFile) {
  const Buffer file = small_file();
  const Cut cut = cut_file(Cutter::safetensors, ByteSpan(file).first(68), file.size());
  EXPECT_EQ(cut.cutter, Cutter::safetensors);
  EXPECT_EQ(cut.refusal, "");
  ASSERT_EQ(cut.extents.count(), 2u);
  EXPECT_EQ(cut.extents.at(1).offset, 68u);
  EXPECT_EQ(cut.extents.at(1).dtype, Dtype::i32);
}

TEST(Format, CutsAnOpaqueFileUniformly) {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\n";
  const Cut cut = cut_file(Cutter::safetensors, as_bytes(pointer), pointer.size());
  EXPECT_EQ(cut.cutter, Cutter::uniform);
  EXPECT_NE(cut.refusal, "");
  expect_covers(cut.extents, pointer.size());
  EXPECT_EQ(cut_file(Cutter::safetensors, {}, 0).extents.count(), 0u);
  EXPECT_EQ(cut_file(Cutter::uniform, {}, 5).refusal, "");
}

}  // namespace
}  // namespace cake
