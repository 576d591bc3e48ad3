#include "store/codec/float_planes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "tests/support/pattern.h"
#include "tests/support/store_fixture.h"

namespace cake {
namespace {

const std::vector<Dtype> kDtypes = {
    Dtype::bf16, Dtype::f16, Dtype::f32,         Dtype::c64,   Dtype::f8_e4m3,     Dtype::f8_e5m2,
    Dtype::i8,   Dtype::u8,  Dtype::f8_e4m3fnuz, Dtype::bytes, Dtype::f8_e5m2fnuz, Dtype::i32};

// Every writer of this machine.
std::vector<FloatPlanesCodec> writers() {
  std::vector<FloatPlanesCodec> all;
  for (const CodecKernels* kernels : all_kernels())
    for (const EntropyCoder coder : {EntropyCoder::zstd, EntropyCoder::rans})
      all.emplace_back(coder, *kernels);
  return all;
}

// What is encoded decodes to itself, with every reader; answers the encoded size (the plain one
// when nothing is gained).
size_t expect_identity(ByteSpan plain, Dtype dtype) {
  size_t size = plain.size();
  for (const FloatPlanesCodec& writer : writers()) {
    const auto encoded = writer.encode(plain, dtype);
    EXPECT_TRUE(encoded) << encoded.error().message;
    if (!encoded || !*encoded) continue;
    size = (*encoded)->size();
    EXPECT_LT(size, plain.size());
    for (const CodecKernels* kernels : all_kernels()) {
      Buffer decoded(plain.size(), std::byte{0xcc});
      const Status status =
          FloatPlanesCodec(EntropyCoder::zstd, *kernels).decode(**encoded, decoded);
      EXPECT_TRUE(status) << kernels->name << ": " << status.error().message;
      EXPECT_TRUE(std::equal(plain.begin(), plain.end(), decoded.begin()))
          << kernels->name << ", dtype " << static_cast<unsigned>(dtype) << ", " << plain.size();
    }
  }
  return size;
}

// Values of a normal distribution as F32, or cut to BF16.
Buffer weights(size_t size, Dtype dtype, double sigma, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, static_cast<float>(sigma));
  const size_t width = dtype == Dtype::bf16 ? 2 : 4;
  Buffer bytes(size);
  for (size_t i = 0; i + width <= size; i += width) {
    const auto bits = std::bit_cast<uint32_t>(normal(random));
    if (width == 2)
      store_le(&bytes[i], static_cast<uint16_t>(bits >> 16));
    else
      store_le(&bytes[i], bits);
  }
  return bytes;
}

Buffer patterns16(bool is_shuffled) {
  std::vector<uint16_t> values(65'536);
  for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<uint16_t>(i);
  if (is_shuffled) std::shuffle(values.begin(), values.end(), std::mt19937_64(1));
  Buffer bytes(2 * values.size());
  for (size_t i = 0; i < values.size(); i++) store_le(&bytes[2 * i], values[i]);
  return bytes;
}

// Elements of one value, as often as they fit, a part of one at the end.
Buffer repeated(uint32_t element, size_t width, size_t size) {
  Buffer bytes(size);
  for (size_t i = 0; i < size; i++) bytes[i] = static_cast<std::byte>(element >> 8 * (i % width));
  return bytes;
}

TEST(FloatPlanes, GivesBackEveryPatternOf16Bits) {
  for (const bool is_shuffled : {false, true})
    for (const Dtype dtype : kDtypes) expect_identity(patterns16(is_shuffled), dtype);
}

// The same patterns behind weights: so many of these that the chunk is worth encoding.
TEST(FloatPlanes, GivesBackEveryPatternAmongWeights) {
  for (const Dtype dtype : kDtypes) {
    Buffer plain = weights(384 * kKiB, Dtype::bf16, 0.02, 2);
    const Buffer patterns = patterns16(true);
    plain.insert(plain.begin() + 100'000, patterns.begin(), patterns.end());
    expect_identity(plain, dtype);
  }
  const Buffer few = [] {
    Buffer plain = weights(kMiB, Dtype::bf16, 0.02, 3);
    for (uint32_t i = 0; i < 65'536; i += 7)
      store_le(&plain[size_t{i} * 16 & ~size_t{1}], static_cast<uint16_t>(i));
    return plain;
  }();
  EXPECT_LT(expect_identity(few, Dtype::bf16), few.size() * 85 / 100);
}

TEST(FloatPlanes, GivesBackOddValues) {
  const std::vector<std::pair<uint32_t, size_t>> elements = {
      {0, 2},          {0x8000, 2},     {0x7fc1, 2},     {0xffff, 2},     {0x7e01, 2},
      {0x7c01, 2},     {0x0001, 2},     {0xff80, 2},     {0, 4},          {0x80000000, 4},
      {0x7f800001, 4}, {0xffc00001, 4}, {0x3f800000, 4}, {0x7f802000, 4}, {0x00000001, 4},
      {0x33800000, 4}, {0x80, 1},       {0xff, 1},       {0x7f, 1}};
  for (const auto& [element, width] : elements)
    for (const size_t size : {size_t{4096}, size_t{70'003}})
      for (const Dtype dtype : kDtypes)
        EXPECT_LT(expect_identity(repeated(element, width, size), dtype), size / 2) << element;
  // The planes of a whole chunk, all at their longest.
  for (const Dtype dtype : kDtypes) expect_identity(repeated(0x80, 1, kMiB), dtype);
}

TEST(FloatPlanes, GivesBackAnyLength) {
  const Buffer plain = weights(5'000, Dtype::bf16, 0.02, 4);
  const Buffer wide = weights(5'000, Dtype::f32, 0.02, 5);
  const size_t step = is_long() ? 1 : 41;
  for (size_t length = 0; length <= 4'100; length += length < 70 ? 1 : step)
    for (const Dtype dtype : kDtypes) {
      expect_identity(ByteSpan(plain).first(length), dtype);
      expect_identity(ByteSpan(wide).first(length), dtype);
    }
  for (const size_t length : {32'767, 32'768, 32'769, 65'535, 65'537, 65'791, 131'072, 500'001})
    for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f8_e4m3, Dtype::i8})
      EXPECT_LT(expect_identity(weights(length, Dtype::bf16, 0.02, length), dtype), length);
}

// 64 symbols fill a table; 65 need an escape; 255 leave most values to it.
TEST(FloatPlanes, GivesBackAlphabetsOfAnySize) {
  std::mt19937_64 random(6);
  for (const unsigned symbols :
       {1U, 2U, 3U, 15U, 16U, 17U, 31U, 32U, 33U, 63U, 64U, 65U, 128U, 255U})
    for (const Dtype dtype : kDtypes) {
      Buffer plain(50'000);
      for (std::byte& byte : plain)
        byte = static_cast<std::byte>(37 * std::min(random() % symbols, random() % symbols));
      expect_identity(plain, dtype);
    }
}

TEST(FloatPlanes, GivesBackWhatChangesAlongTheChunk) {
  // Noise, one value, weights far from 1, weights beyond 2: in every order of halves.
  const std::vector<Buffer> parts = {random_bytes(7, 65'536), Buffer(65'536, std::byte{0x3f}),
                                     weights(65'536, Dtype::bf16, 1e-20, 8),
                                     weights(65'536, Dtype::bf16, 30, 9)};
  for (const Buffer& first : parts)
    for (const Buffer& second : parts)
      for (const Dtype dtype : {Dtype::bf16, Dtype::f16, Dtype::f32, Dtype::f8_e5m2, Dtype::u8}) {
        Buffer plain = first;
        plain.insert(plain.end(), second.begin(), second.end());
        expect_identity(plain, dtype);
      }
}

TEST(FloatPlanes, DeclinesNoise) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{100}, size_t{70'000}, size_t{kMiB}})
    for (const Dtype dtype : kDtypes)
      EXPECT_EQ(expect_identity(random_bytes(size, size), dtype), size);
}

TEST(FloatPlanes, DeclinesWhatIsLongerThanAChunk) {
  const FloatPlanesCodec codec(EntropyCoder::rans, scalar_kernels());
  EXPECT_FALSE(codec.encode(Buffer(kMiB + 2), Dtype::bf16)->has_value());
  Buffer decoded(kMiB + 2);
  EXPECT_EQ(codec.decode(*codec.encode(Buffer(kMiB), Dtype::bf16).value(), decoded).error().code,
            Errc::corrupt);
}

// The figures of compression.md's theory: exponent and top mantissa bit at their entropy.
TEST(FloatPlanes, TakesAThirdOffBf16) {
  const FloatPlanesCodec rans(EntropyCoder::rans, best_kernels());
  const FloatPlanesCodec zstd(EntropyCoder::zstd, best_kernels());
  const Buffer plain = weights(kMiB, Dtype::bf16, 0.02, 10);
  const auto size = [&](const FloatPlanesCodec& codec) {
    return static_cast<double>((**codec.encode(plain, Dtype::bf16)).size()) / kMiB;
  };
  EXPECT_LT(size(rans), 0.665);
  EXPECT_LT(size(zstd), 0.675);
}

// Exponents beyond 2: the bias keeps their top bit constant.
TEST(FloatPlanes, FollowsTheScaleOfTheWeights) {
  for (const double sigma : {1e-30, 1e-3, 1.0, 3.0, 1e3, 1e30}) {
    const Buffer plain = weights(kMiB, Dtype::bf16, sigma, 11);
    EXPECT_LT(expect_identity(plain, Dtype::bf16), plain.size() * 67 / 100) << sigma;
  }
}

// F32 that was BF16 or F16 once costs what that costs.
TEST(FloatPlanes, FindsWidenedElements) {
  Buffer from_bf16 = weights(kMiB, Dtype::f32, 0.02, 12);
  for (size_t i = 0; i < from_bf16.size(); i += 4) from_bf16[i] = from_bf16[i + 1] = std::byte{0};
  EXPECT_LT(expect_identity(from_bf16, Dtype::f32), kMiB * 34 / 100);

  Buffer from_f16(kMiB);
  std::mt19937_64 random(13);
  std::normal_distribution<float> normal(0, 0.02F);
  for (size_t i = 0; i < from_f16.size(); i += 4) {
    uint32_t bits = std::bit_cast<uint32_t>(normal(random)) & 0xffffe000U;
    if ((bits >> 23 & 0xff) < 113) bits &= 0x80000000U;
    store_le(&from_f16[i], bits);
  }
  EXPECT_LT(expect_identity(from_f16, Dtype::f32), kMiB * 44 / 100);
  // One element that never was an F16, where no sample sees it.
  store_le(&from_f16[999'996], uint32_t{0x3f800001});
  EXPECT_LT(expect_identity(from_f16, Dtype::f32), kMiB * 60 / 100);
  store_le(&from_f16[999'996], uint32_t{0x7f800000});
  expect_identity(from_f16, Dtype::f32);
}

TEST(FloatPlanes, KernelsWriteTheSame) {
  for (const EntropyCoder coder : {EntropyCoder::zstd, EntropyCoder::rans})
    for (const Dtype dtype : kDtypes)
      for (const size_t size : {size_t{kMiB}, size_t{100'003}}) {
        const Buffer plain =
            weights(size, dtype == Dtype::bf16 ? Dtype::bf16 : Dtype::f32, 0.1, 14);
        const auto expected = FloatPlanesCodec(coder, scalar_kernels()).encode(plain, dtype);
        for (const CodecKernels* kernels : all_kernels())
          EXPECT_EQ(*FloatPlanesCodec(coder, *kernels).encode(plain, dtype), *expected)
              << kernels->name;
      }
}

TEST(FloatPlanes, RefusesDamagedFrames) {
  std::mt19937_64 random(15);
  const Buffer plain = weights(70'001, Dtype::bf16, 0.02, 16);
  for (const FloatPlanesCodec& codec : writers()) {
    const Buffer encoded = **codec.encode(plain, Dtype::bf16);
    Buffer decoded(plain.size());
    for (size_t length = 0; length < encoded.size(); length += 1 + length / 8) {
      const Status status = codec.decode(ByteSpan(encoded).first(length), decoded);
      ASSERT_FALSE(status) << length;
      EXPECT_EQ(status.error().code, Errc::corrupt);
    }
    for (const size_t wrong : {size_t{0}, size_t{1}, plain.size() - 1, plain.size() + 1}) {
      Buffer other(wrong);
      EXPECT_FALSE(codec.decode(encoded, other)) << wrong;
    }
    for (const size_t at : {size_t{0}, size_t{1}, size_t{3}, size_t{4}, size_t{5}}) {
      Buffer damaged = encoded;
      damaged[at] = std::byte{0xee};
      EXPECT_FALSE(codec.decode(damaged, decoded)) << at;
    }
    // Anywhere else: refused or decoded to something else, but equally by all kernels.
    for (int i = 0; i < 100; i++) {
      Buffer damaged = encoded;
      damaged[random() % std::min<size_t>(1'000, damaged.size())] ^= std::byte{1};
      damaged[random() % damaged.size()] ^= static_cast<std::byte>(random());
      Buffer expected(plain.size()), other(plain.size());
      const bool is_read =
          FloatPlanesCodec(EntropyCoder::zstd, scalar_kernels()).decode(damaged, expected).ok();
      for (const CodecKernels* kernels : all_kernels()) {
        const Status status = FloatPlanesCodec(EntropyCoder::zstd, *kernels).decode(damaged, other);
        EXPECT_EQ(status.ok(), is_read);
        if (is_read) EXPECT_EQ(other, expected);
      }
    }
  }
}

TEST(FloatPlanes, WorksOnManyThreads) {
  const FloatPlanesCodec codec(EntropyCoder::rans, best_kernels());
  std::vector<int> is_equal(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < is_equal.size(); i++)
    threads.emplace_back([&, i] {
      for (uint64_t round = 0; round < 3; round++) {
        const Buffer plain = weights(kMiB, Dtype::bf16, 0.02, 100 * i + round);
        Buffer decoded(plain.size());
        is_equal[i] +=
            codec.decode(**codec.encode(plain, Dtype::bf16), decoded) && decoded == plain;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(is_equal, std::vector<int>(4, 3));
}

}  // namespace
}  // namespace cake
