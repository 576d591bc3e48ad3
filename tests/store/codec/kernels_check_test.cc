#include "store/codec/kernels_check.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/kernel_sets.h"

namespace cake {
namespace {

TEST(KernelsCheck, PassesEverySet) {
  for (const CodecKernels* kernels : kernel_sets())
    EXPECT_EQ(find_wrong_kernel(*kernels), std::nullopt) << kernels->name;
}

TEST(KernelsCheck, TheBestKernelsAreTheLastOfTheMachine) {
  EXPECT_EQ(&best_kernels(), all_kernels().back());
  EXPECT_EQ(&best_kernels(), &best_kernels());
}

// Each function in turn, replaced by one that gets a single bit of its output wrong.
TEST(KernelsCheck, NamesTheFunctionThatIsWrong) {
  const CodecKernels& right = scalar_kernels();
  const auto expect_wrong = [&](std::string_view name, auto CodecKernels::*function, auto wrong) {
    CodecKernels kernels = right;
    kernels.*function = wrong;
    EXPECT_EQ(find_wrong_kernel(kernels), name);
  };
  expect_wrong("rans_encode", &CodecKernels::rans_encode,
               [](RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                  size_t count, uint8_t* out) {
                 out = scalar_kernels().rans_encode(states, table, entries, count, out);
                 states.low[127] ^= 1;
                 return out;
               });
  expect_wrong("rans_decode", &CodecKernels::rans_decode,
               [](RansStates& states, const RansTable& table, const uint8_t* in, const uint8_t* end,
                  uint8_t* out, size_t count, uint32_t* escapes) {
                 in = scalar_kernels().rans_decode(states, table, in, end, out, count, escapes);
                 if (table.entries == 33) escapes[count / 32] ^= 2;
                 return in;
               });
  expect_wrong("map_entries", &CodecKernels::map_entries,
               [](const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                  uint8_t* entries, uint8_t* escaped) {
                 const size_t escapes =
                     scalar_kernels().map_entries(in, count, map, escape, entries, escaped);
                 if (escapes > 0) std::reverse(escaped, escaped + escapes);
                 return escapes;
               });
  expect_wrong("split_bf16", &CodecKernels::split_bf16,
               [](const uint8_t* in, size_t count, uint8_t bias, uint8_t* symbols, uint8_t* tops,
                  uint8_t* rest) {
                 scalar_kernels().split_bf16(in, count, bias, symbols, tops, rest);
                 if (bias >= 128) tops[0] ^= 1;
               });
  expect_wrong("merge_bf16", &CodecKernels::merge_bf16,
               [](const uint8_t* symbols, const uint8_t* tops, const uint8_t* rest, size_t count,
                  uint8_t bias, uint8_t* out) {
                 scalar_kernels().merge_bf16(symbols, tops, rest, count, bias, out);
                 out[2 * count - 1] ^= 0x80;
               });
  expect_wrong(
      "split_f16", &CodecKernels::split_f16,
      [](const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs, uint8_t* lows) {
        scalar_kernels().split_f16(in, count, symbols, pairs, lows);
        lows[0] ^= 1;
      });
  expect_wrong("merge_f16", &CodecKernels::merge_f16,
               [](const uint8_t* symbols, const uint8_t* pairs, const uint8_t* lows, size_t count,
                  uint8_t* out) {
                 scalar_kernels().merge_f16(symbols, pairs, lows, count, out);
                 out[1] ^= 2;
               });
  const auto wrong_split = [](const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
    scalar_kernels().split_fp8(in, count, symbols, pairs);
    symbols[0] ^= 0x40;
  };
  const auto wrong_merge = [](const uint8_t* symbols, const uint8_t* pairs, size_t count,
                              uint8_t* out) {
    scalar_kernels().merge_fp8(symbols, pairs, count, out);
    out[count / 2] ^= 1;
  };
  expect_wrong("split_fp8", &CodecKernels::split_fp8, wrong_split);
  expect_wrong("merge_fp8", &CodecKernels::merge_fp8, wrong_merge);
  expect_wrong("split_int8", &CodecKernels::split_int8, right.split_fp8);
  expect_wrong("merge_int8", &CodecKernels::merge_int8, right.merge_fp8);
  expect_wrong("split_f32", &CodecKernels::split_f32,
               [](const uint8_t* in, size_t count, uint8_t* upper, uint8_t* mid, uint8_t* low) {
                 scalar_kernels().split_f32(in, count, upper, low, mid);
               });
  expect_wrong("merge_f32", &CodecKernels::merge_f32,
               [](const uint8_t* upper, const uint8_t* mid, const uint8_t* low, size_t count,
                  uint8_t* out) { scalar_kernels().merge_f32(upper, low, mid, count, out); });
  expect_wrong("narrow_f32", &CodecKernels::narrow_f32,
               [](const uint8_t* in, size_t count, uint8_t* out) {
                 scalar_kernels().narrow_f32(in, count, out);
                 return true;
               });
  expect_wrong("widen_f16", &CodecKernels::widen_f16,
               [](const uint8_t* in, size_t count, uint8_t* out) {
                 scalar_kernels().widen_f16(in, count, out);
                 for (size_t i = 0; i < count; i++)
                   if ((in[2 * i + 1] & 0x7c) == 0x7c) out[4 * i + 2] &= 0xbf;  // a NaN left loud
               });
}

TEST(KernelsCheck, SeesWhatIsWrittenBeyondTheEnd) {
  CodecKernels kernels = scalar_kernels();
  kernels.merge_f32 = [](const uint8_t* upper, const uint8_t* mid, const uint8_t* low, size_t count,
                         uint8_t* out) {
    scalar_kernels().merge_f32(upper, mid, low, count, out);
    out[4 * count] = 0;
  };
  EXPECT_EQ(find_wrong_kernel(kernels), "merge_f32");
  kernels = scalar_kernels();
  kernels.rans_encode = [](RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                           size_t count, uint8_t* out) {
    out = scalar_kernels().rans_encode(states, table, entries, count, out);
    out[-32] = 0;
    out[-33] = 0;
    return out;
  };
  EXPECT_EQ(find_wrong_kernel(kernels), "rans_encode");
}

}  // namespace
}  // namespace cake
