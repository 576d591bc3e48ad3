#include "store/codec/codec.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <random>
#include <thread>

#include "store/codec/zstd.h"
#include "tests/support/pattern.h"

namespace cake {
namespace {

// BF16 values of a normal distribution: what weights look like.
Buffer weights(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, 0.02F);
  Buffer bytes(size);
  for (size_t i = 0; i + 1 < size; i += 2) {
    const uint32_t bits = std::bit_cast<uint32_t>(normal(random));
    store_le(&bytes[i], static_cast<uint16_t>(bits >> 16));
  }
  return bytes;
}

Buffer text(size_t size) {
  std::string lines;
  for (size_t i = 0; lines.size() < size; i++)
    lines += cat("\"model.layers.", i, ".weight\": 1,\n");
  lines.resize(size);
  return to_buffer(as_bytes(lines));
}

void expect_round_trip(const Codec& codec, const Buffer& plain, Dtype dtype, double at_most) {
  const auto encoded = codec.encode(plain, dtype);
  ASSERT_TRUE(encoded) << encoded.error().message;
  ASSERT_TRUE(encoded->has_value());
  EXPECT_LE(static_cast<double>((*encoded)->size()), at_most * static_cast<double>(plain.size()));
  Buffer decoded(plain.size(), std::byte{0xcc});
  const Status status = codec.decode(**encoded, decoded);
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_EQ(decoded, plain);
}

const Codec& zstd() {
  return **find_codec(CodecId::zstd);
}

TEST(Codec, HasStableNamesAndNumbers) {
  const std::vector<std::pair<CodecId, std::string>> all = {{CodecId::raw, "raw"},
                                                            {CodecId::zstd, "zstd"},
                                                            {CodecId::float_planes, "float_planes"},
                                                            {CodecId::delta, "delta"}};
  for (size_t i = 0; i < all.size(); i++) {
    EXPECT_EQ(static_cast<size_t>(all[i].first), i);
    EXPECT_EQ(codec_name(all[i].first), all[i].second);
    EXPECT_EQ(codec_from_name(all[i].second), all[i].first);
  }
  EXPECT_EQ(codec_from_name("lzma"), std::nullopt);
}

TEST(Codec, RefusesWhatThisProgramCannotDecode) {
  for (const auto id : {CodecId::delta, static_cast<CodecId>(200)}) {
    const auto codec = find_codec(id);
    ASSERT_FALSE(codec);
    EXPECT_EQ(codec.error().code, Errc::unsupported);
  }
  EXPECT_EQ((*find_codec(CodecId::raw))->id(), CodecId::raw);
  EXPECT_EQ((*find_codec(CodecId::zstd))->id(), CodecId::zstd);
  EXPECT_EQ((*find_codec(CodecId::float_planes))->id(), CodecId::float_planes);
}

TEST(Codec, ChoosesByOption) {
  EXPECT_EQ(choose_codec(CodecChoice::raw, Dtype::bf16).id(), CodecId::raw);
  EXPECT_EQ(choose_codec(CodecChoice::zstd, Dtype::bytes).id(), CodecId::zstd);
  EXPECT_EQ(choose_codec(CodecChoice::automatic, Dtype::bytes).id(), CodecId::zstd);
  for (const CodecChoice choice : {CodecChoice::automatic, CodecChoice::zstd, CodecChoice::rans}) {
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f8_e4m3, Dtype::i8})
      EXPECT_EQ(choose_codec(choice, dtype).id(), CodecId::float_planes);
    EXPECT_EQ(choose_codec(choice, Dtype::i64).id(), CodecId::zstd);
  }
  EXPECT_EQ(choose_codec(CodecChoice::automatic, Dtype::f64).id(), CodecId::raw);
}

TEST(RawCodec, CopiesAndChecksTheLength) {
  const Codec& raw = **find_codec(CodecId::raw);
  const Buffer plain = random_bytes(1, 100);
  EXPECT_FALSE(raw.encode(plain, Dtype::u8)->has_value());
  Buffer decoded(100);
  EXPECT_TRUE(raw.decode(plain, decoded));
  EXPECT_EQ(decoded, plain);
  for (const size_t wrong : {0, 99, 101}) {
    Buffer other(wrong);
    EXPECT_EQ(raw.decode(plain, other).error().code, Errc::corrupt) << wrong;
  }
}

TEST(ZstdCodec, RoundTripsWhatCompresses) {
  expect_round_trip(zstd(), text(kMiB), Dtype::bytes, 0.2);
  expect_round_trip(zstd(), text(300), Dtype::bytes, 0.7);
  expect_round_trip(zstd(), Buffer(kMiB), Dtype::f32, 0.001);
  expect_round_trip(zstd(), weights(kMiB, 1), Dtype::bf16, 0.85);
  expect_round_trip(zstd(), weights(256 * kKiB + 2, 2), Dtype::bf16, 0.85);
}

TEST(ZstdCodec, DeclinesWhatGainsTooLittle) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{100}, size_t{100'000}, size_t{kMiB}})
    EXPECT_FALSE(zstd().encode(random_bytes(size, size), Dtype::u8)->has_value()) << size;
  // 1 % of a chunk compresses to nothing: a gain of less than 1.5 %.
  Buffer slightly = random_bytes(3, 100'000);
  std::fill_n(slightly.begin(), 1'000, std::byte{0});
  EXPECT_FALSE(zstd().encode(slightly, Dtype::u8)->has_value());
  std::fill_n(slightly.begin(), 3'000, std::byte{0});
  EXPECT_TRUE(zstd().encode(slightly, Dtype::u8)->has_value());
}

// The sample is spread: a compressible eighth is seen wherever it lies.
TEST(ZstdCodec, SamplesTheWholeChunk) {
  for (size_t eighth = 0; eighth < 8; eighth++) {
    Buffer plain = random_bytes(eighth, kMiB);
    std::fill_n(plain.begin() + static_cast<ptrdiff_t>(eighth * kMiB / 8), kMiB / 8, std::byte{0});
    expect_round_trip(zstd(), plain, Dtype::u8, 0.9);
  }
}

TEST(ZstdCodec, DecodesOnManyThreads) {
  const Buffer plain = text(kMiB);
  const Buffer encoded = **zstd().encode(plain, Dtype::bytes);
  std::vector<int> is_equal(4);
  std::vector<std::thread> threads;
  for (int& equal : is_equal)
    threads.emplace_back([&] {
      Buffer decoded(plain.size());
      equal = zstd().decode(encoded, decoded) && decoded == plain;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(is_equal, std::vector<int>(4, 1));
}

TEST(ZstdCodec, RefusesAnotherLength) {
  const Buffer plain = text(10'000);
  const Buffer encoded = **zstd().encode(plain, Dtype::bytes);
  for (const size_t wrong : {0, 1, 9'999, 10'001, 1'000'000}) {
    Buffer decoded(wrong);
    const Status status = zstd().decode(encoded, decoded);
    ASSERT_FALSE(status) << wrong;
    EXPECT_EQ(status.error().code, Errc::corrupt);
  }
}

TEST(ZstdCodec, RefusesTruncatedAndTrailingBytes) {
  const Buffer plain = text(2'000);
  Buffer encoded = **zstd().encode(plain, Dtype::bytes);
  Buffer decoded(plain.size());
  for (size_t given = 0; given < encoded.size(); given++)
    ASSERT_FALSE(zstd().decode(ByteSpan(encoded).first(given), decoded)) << given;
  encoded.push_back(std::byte{0});
  EXPECT_FALSE(zstd().decode(encoded, decoded));
}

// Many a flipped bit makes other bytes; the store's checksum finds those.  None may crash, and what
// is refused is refused as corrupt.
TEST(ZstdCodec, SurvivesFlippedBits) {
  const Buffer plain = text(3'000);
  const Buffer encoded = **zstd().encode(plain, Dtype::bytes);
  size_t refused = 0;
  for (size_t bit = 0; bit < 8 * encoded.size(); bit++) {
    Buffer flipped = encoded;
    flipped[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    Buffer decoded(plain.size());
    const Status status = zstd().decode(flipped, decoded);
    if (status) continue;
    refused++;
    EXPECT_EQ(status.error().code, Errc::corrupt);
  }
  EXPECT_GT(refused, 8u * 4);
}

Buffer frame(const Buffer& plain, const std::vector<std::pair<ZSTD_cParameter, int>>& parameters) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  for (const auto& [parameter, value] : parameters)
    EXPECT_FALSE(ZSTD_isError(ZSTD_CCtx_setParameter(context, parameter, value)));
  Buffer out(ZSTD_compressBound(plain.size()));
  const size_t size = ZSTD_compress2(context, out.data(), out.size(), plain.data(), plain.size());
  ZSTD_freeCCtx(context);
  EXPECT_FALSE(ZSTD_isError(size));
  out.resize(size);
  return out;
}

TEST(ZstdCodec, RefusesAFrameThatHidesItsLength) {
  const Buffer plain = text(5'000);
  Buffer decoded(plain.size());
  EXPECT_TRUE(zstd().decode(frame(plain, {}), decoded));
  EXPECT_FALSE(zstd().decode(frame(plain, {{ZSTD_c_contentSizeFlag, 0}}), decoded));
}

TEST(ZstdCodec, RefusesAWindowBeyondTheChunk) {
  // Magic, descriptor (4-byte content size, not a single segment), window of 2^20, one raw byte.
  Buffer bad = to_buffer(
      as_bytes(std::string_view("\x28\xb5\x2f\xfd\x80\x50\x01\x00\x00\x00\x09\x00\x00x", 14)));
  Buffer decoded(1);
  EXPECT_EQ(zstd().decode(bad, decoded).error().message, "zstd: window beyond the chunk");
  // The same as a single segment, which needs no window.
  const Buffer good = to_buffer(
      as_bytes(std::string_view("\x28\xb5\x2f\xfd\xa0\x01\x00\x00\x00\x09\x00\x00x", 13)));
  ASSERT_TRUE(zstd().decode(good, decoded));
  EXPECT_EQ(decoded[0], std::byte{'x'});
}

TEST(ZstdCodec, RefusesSkippableAndForeignFrames) {
  Buffer decoded;
  const Buffer skippable =
      to_buffer(as_bytes(std::string_view("\x50\x2a\x4d\x18\x00\x00\x00\x00", 8)));
  EXPECT_FALSE(zstd().decode(skippable, decoded));
  EXPECT_FALSE(zstd().decode(as_bytes("not zstd at all"), decoded));
  EXPECT_FALSE(zstd().decode({}, decoded));
}

}  // namespace
}  // namespace cake
