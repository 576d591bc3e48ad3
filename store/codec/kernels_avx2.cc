#include "store/codec/kernels.h"

#if defined(__x86_64__)

#include "store/codec/avx2.h"
#include "store/codec/packing.h"

namespace cake {

namespace avx2 {
namespace {

// What is left behind whole groups goes to the scalar kernels.
constexpr size_t whole_groups(size_t count, size_t group) {
  return count / group * group;
}

// Lower and upper bytes of 32 16-bit elements, and back.
CAKE_AVX2_INLINE void take_apart(const uint8_t* in, __m256i& low, __m256i& high) {
  const __m256i a = load(in), b = load(in + 32);
  const __m256i mask = _mm256_set1_epi16(0xff);
  const __m256i lows = _mm256_packus_epi16(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask));
  const __m256i highs = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
  low = _mm256_permute4x64_epi64(lows, 0xd8);
  high = _mm256_permute4x64_epi64(highs, 0xd8);
}
CAKE_AVX2_INLINE void put_together(__m256i low, __m256i high, uint8_t* out) {
  const __m256i a = _mm256_unpacklo_epi8(low, high), b = _mm256_unpackhi_epi8(low, high);
  store(out, _mm256_permute2x128_si256(a, b, 0x20));
  store(out + 32, _mm256_permute2x128_si256(a, b, 0x31));
}

// --- BF16 ---

// Row K of a group of 256; `last` collects the bits of the eighth row.
struct Bf16Rows {
  __m256i rest[8];
  __m256i tops;
};

template <int K>
CAKE_AVX2_INLINE void split_bf16_row(const uint8_t* in, __m256i bias, uint8_t* symbols,
                                     Bf16Rows& rows) {
  __m256i low, high;
  take_apart(in + 64 * K, low, high);
  const __m256i exponent = _mm256_or_si256(bits_left<1>(high, 0xfe), bits_right<7>(low, 1));
  const __m256i shifted = _mm256_sub_epi8(exponent, bias);
  store(symbols + 32 * K, _mm256_or_si256(bits_left<1>(shifted, 0xfe), bits_right<6>(low, 1)));
  rows.tops = _mm256_or_si256(rows.tops, bits_right<7 - K>(shifted, 1 << K));
  rows.rest[K] =
      _mm256_or_si256(bits_right<1>(high, 0x40), _mm256_and_si256(low, _mm256_set1_epi8(0x3f)));
}

template <int K>
CAKE_AVX2_INLINE void store_rest_row(const Bf16Rows& rows, uint8_t* rest) {
  store(rest + 32 * K, _mm256_or_si256(rows.rest[K], bits_left<7 - K>(rows.rest[7], 0x80)));
}

CAKE_AVX2 void split_bf16(const uint8_t* in, size_t count, uint8_t bias, uint8_t* symbols,
                          uint8_t* tops, uint8_t* rest) {
  const __m256i bias_bytes = _mm256_set1_epi8(static_cast<char>(bias));
  const size_t whole = whole_groups(count, kGroup7);
  for (size_t at = 0; at < whole; at += kGroup7) {
    const uint8_t* const from = in + 2 * at;
    uint8_t* const to = symbols + at;
    Bf16Rows rows;
    rows.tops = _mm256_setzero_si256();
    split_bf16_row<0>(from, bias_bytes, to, rows);
    split_bf16_row<1>(from, bias_bytes, to, rows);
    split_bf16_row<2>(from, bias_bytes, to, rows);
    split_bf16_row<3>(from, bias_bytes, to, rows);
    split_bf16_row<4>(from, bias_bytes, to, rows);
    split_bf16_row<5>(from, bias_bytes, to, rows);
    split_bf16_row<6>(from, bias_bytes, to, rows);
    split_bf16_row<7>(from, bias_bytes, to, rows);
    store(tops + packed_bytes(1, at), rows.tops);
    uint8_t* const rest_at = rest + packed_bytes(7, at);
    store_rest_row<0>(rows, rest_at);
    store_rest_row<1>(rows, rest_at);
    store_rest_row<2>(rows, rest_at);
    store_rest_row<3>(rows, rest_at);
    store_rest_row<4>(rows, rest_at);
    store_rest_row<5>(rows, rest_at);
    store_rest_row<6>(rows, rest_at);
  }
  scalar_kernels().split_bf16(in + 2 * whole, count - whole, bias, symbols + whole,
                              tops + packed_bytes(1, whole), rest + packed_bytes(7, whole));
}

// `rest` has the sign as bit 6.
CAKE_AVX2_INLINE void merge_bf16_row(__m256i symbols, __m256i top, __m256i rest, __m256i bias,
                                     uint8_t* out) {
  const __m256i exponent =
      _mm256_add_epi8(_mm256_or_si256(bits_right<1>(symbols, 0x7f), top), bias);
  const __m256i fraction = _mm256_and_si256(rest, _mm256_set1_epi8(0x3f));
  const __m256i low = _mm256_or_si256(
      _mm256_or_si256(bits_left<7>(exponent, 0x80), bits_left<6>(symbols, 0x40)), fraction);
  const __m256i high = _mm256_or_si256(bits_left<1>(rest, 0x80), bits_right<1>(exponent, 0x7f));
  put_together(low, high, out);
}
// The same where bias and top are zero.
CAKE_AVX2_INLINE void merge_small_bf16_row(__m256i symbols, __m256i rest, uint8_t* out) {
  const __m256i fraction = _mm256_and_si256(rest, _mm256_set1_epi8(0x3f));
  put_together(_mm256_or_si256(bits_left<6>(symbols, 0xc0), fraction),
               _mm256_or_si256(bits_left<1>(rest, 0x80), bits_right<2>(symbols, 0x3f)), out);
}

template <int K>
CAKE_AVX2_INLINE void merge_row(const uint8_t* symbols, __m256i tops, bool is_small,
                                const uint8_t* rest, __m256i bias, __m256i& last, uint8_t* out) {
  __m256i row;
  if constexpr (K < 7) {
    row = load(rest + 32 * K);
    last = _mm256_or_si256(last, bits_right<7 - K>(row, 1 << K));
  } else {
    row = last;
  }
  const __m256i symbol = load(symbols + 32 * K);
  if (is_small)
    merge_small_bf16_row(symbol, row, out + 64 * K);
  else
    merge_bf16_row(symbol, bits_left<7 - K>(tops, 0x80), row, bias, out + 64 * K);
}

CAKE_AVX2_INLINE void merge_bf16_group(const uint8_t* symbols, __m256i tops, bool is_small,
                                       const uint8_t* rest, __m256i bias, uint8_t* out) {
  __m256i last = _mm256_setzero_si256();
  merge_row<0>(symbols, tops, is_small, rest, bias, last, out);
  merge_row<1>(symbols, tops, is_small, rest, bias, last, out);
  merge_row<2>(symbols, tops, is_small, rest, bias, last, out);
  merge_row<3>(symbols, tops, is_small, rest, bias, last, out);
  merge_row<4>(symbols, tops, is_small, rest, bias, last, out);
  merge_row<5>(symbols, tops, is_small, rest, bias, last, out);
  merge_row<6>(symbols, tops, is_small, rest, bias, last, out);
  merge_row<7>(symbols, tops, is_small, rest, bias, last, out);
}

CAKE_AVX2 void merge_bf16(const uint8_t* symbols, const uint8_t* tops, const uint8_t* rest,
                          size_t count, uint8_t bias, uint8_t* out) {
  const __m256i bias_bytes = _mm256_set1_epi8(static_cast<char>(bias));
  const size_t whole = whole_groups(count, kGroup7);
  for (size_t at = 0; at < whole; at += kGroup7) {
    const __m256i group_tops = load(tops + packed_bytes(1, at));
    const uint8_t* const rest_at = rest + packed_bytes(7, at);
    if (bias == 0 && _mm256_testz_si256(group_tops, group_tops))
      merge_bf16_group(symbols + at, group_tops, true, rest_at, bias_bytes, out + 2 * at);
    else
      merge_bf16_group(symbols + at, group_tops, false, rest_at, bias_bytes, out + 2 * at);
  }
  scalar_kernels().merge_bf16(symbols + whole, tops + packed_bytes(1, whole),
                              rest + packed_bytes(7, whole), count - whole, bias, out + 2 * whole);
}

// --- F16, FP8, int8: a symbol of 6 bits and a pair ---

// Bits 6 to 1 and the pair (0 and 7) of bytes, and back.
CAKE_AVX2_INLINE __m256i inner_symbol(__m256i bytes) {
  return bits_right<1>(bytes, 0x3f);
}
CAKE_AVX2_INLINE __m256i outer_pair(__m256i bytes) {
  return _mm256_or_si256(_mm256_and_si256(bytes, _mm256_set1_epi8(1)), bits_right<6>(bytes, 2));
}
CAKE_AVX2_INLINE __m256i from_inner_outer(__m256i symbol, __m256i pair) {
  return _mm256_or_si256(
      _mm256_or_si256(bits_left<1>(symbol, 0x7e), _mm256_and_si256(pair, _mm256_set1_epi8(1))),
      bits_left<6>(pair, 0x80));
}

template <int K>
CAKE_AVX2_INLINE __m256i pair_row(__m256i pairs) {
  return bits_right<2 * K>(pairs, 3);
}

template <int K>
CAKE_AVX2_INLINE void split_f16_row(const uint8_t* in, uint8_t* symbols, uint8_t* lows,
                                    __m256i& pairs) {
  __m256i low, high;
  take_apart(in + 64 * K, low, high);
  store(lows + 32 * K, low);
  store(symbols + 32 * K, inner_symbol(high));
  pairs = _mm256_or_si256(pairs, _mm256_slli_epi16(outer_pair(high), 2 * K));
}

CAKE_AVX2 void split_f16(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs,
                         uint8_t* lows) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t at = 0; at < whole; at += kGroup2) {
    __m256i packed = _mm256_setzero_si256();
    split_f16_row<0>(in + 2 * at, symbols + at, lows + at, packed);
    split_f16_row<1>(in + 2 * at, symbols + at, lows + at, packed);
    split_f16_row<2>(in + 2 * at, symbols + at, lows + at, packed);
    split_f16_row<3>(in + 2 * at, symbols + at, lows + at, packed);
    store(pairs + packed_bytes(2, at), packed);
  }
  scalar_kernels().split_f16(in + 2 * whole, count - whole, symbols + whole,
                             pairs + packed_bytes(2, whole), lows + whole);
}

template <int K>
CAKE_AVX2_INLINE void merge_f16_row(const uint8_t* symbols, __m256i pairs, const uint8_t* lows,
                                    uint8_t* out) {
  put_together(load(lows + 32 * K), from_inner_outer(load(symbols + 32 * K), pair_row<K>(pairs)),
               out + 64 * K);
}

CAKE_AVX2 void merge_f16(const uint8_t* symbols, const uint8_t* pairs, const uint8_t* lows,
                         size_t count, uint8_t* out) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t at = 0; at < whole; at += kGroup2) {
    const __m256i packed = load(pairs + packed_bytes(2, at));
    merge_f16_row<0>(symbols + at, packed, lows + at, out + 2 * at);
    merge_f16_row<1>(symbols + at, packed, lows + at, out + 2 * at);
    merge_f16_row<2>(symbols + at, packed, lows + at, out + 2 * at);
    merge_f16_row<3>(symbols + at, packed, lows + at, out + 2 * at);
  }
  scalar_kernels().merge_f16(symbols + whole, pairs + packed_bytes(2, whole), lows + whole,
                             count - whole, out + 2 * whole);
}

// FP8 when IsFp8, else int8.
template <bool IsFp8, int K>
CAKE_AVX2_INLINE void split_byte_row(const uint8_t* in, uint8_t* symbols, __m256i& pairs) {
  const __m256i bytes = load(in + 32 * K);
  store(symbols + 32 * K, IsFp8 ? inner_symbol(bytes) : bits_right<2>(bytes, 0x3f));
  const __m256i pair = IsFp8 ? outer_pair(bytes) : _mm256_and_si256(bytes, _mm256_set1_epi8(3));
  pairs = _mm256_or_si256(pairs, _mm256_slli_epi16(pair, 2 * K));
}
template <bool IsFp8>
CAKE_AVX2_INLINE size_t split_bytes(const uint8_t* in, size_t count, uint8_t* symbols,
                                    uint8_t* pairs) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t at = 0; at < whole; at += kGroup2) {
    __m256i packed = _mm256_setzero_si256();
    split_byte_row<IsFp8, 0>(in + at, symbols + at, packed);
    split_byte_row<IsFp8, 1>(in + at, symbols + at, packed);
    split_byte_row<IsFp8, 2>(in + at, symbols + at, packed);
    split_byte_row<IsFp8, 3>(in + at, symbols + at, packed);
    store(pairs + packed_bytes(2, at), packed);
  }
  return whole;
}
template <bool IsFp8, int K>
CAKE_AVX2_INLINE void merge_byte_row(const uint8_t* symbols, __m256i pairs, uint8_t* out) {
  const __m256i symbol = load(symbols + 32 * K);
  const __m256i pair = pair_row<K>(pairs);
  store(out + 32 * K,
        IsFp8 ? from_inner_outer(symbol, pair) : _mm256_or_si256(bits_left<2>(symbol, 0xfc), pair));
}
template <bool IsFp8>
CAKE_AVX2_INLINE size_t merge_bytes(const uint8_t* symbols, const uint8_t* pairs, size_t count,
                                    uint8_t* out) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t at = 0; at < whole; at += kGroup2) {
    const __m256i packed = load(pairs + packed_bytes(2, at));
    merge_byte_row<IsFp8, 0>(symbols + at, packed, out + at);
    merge_byte_row<IsFp8, 1>(symbols + at, packed, out + at);
    merge_byte_row<IsFp8, 2>(symbols + at, packed, out + at);
    merge_byte_row<IsFp8, 3>(symbols + at, packed, out + at);
  }
  return whole;
}

CAKE_AVX2 void split_fp8(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
  const size_t done = split_bytes<true>(in, count, symbols, pairs);
  scalar_kernels().split_fp8(in + done, count - done, symbols + done,
                             pairs + packed_bytes(2, done));
}
CAKE_AVX2 void merge_fp8(const uint8_t* symbols, const uint8_t* pairs, size_t count, uint8_t* out) {
  const size_t done = merge_bytes<true>(symbols, pairs, count, out);
  scalar_kernels().merge_fp8(symbols + done, pairs + packed_bytes(2, done), count - done,
                             out + done);
}
CAKE_AVX2 void split_int8(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
  const size_t done = split_bytes<false>(in, count, symbols, pairs);
  scalar_kernels().split_int8(in + done, count - done, symbols + done,
                              pairs + packed_bytes(2, done));
}
CAKE_AVX2 void merge_int8(const uint8_t* symbols, const uint8_t* pairs, size_t count,
                          uint8_t* out) {
  const size_t done = merge_bytes<false>(symbols, pairs, count, out);
  scalar_kernels().merge_int8(symbols + done, pairs + packed_bytes(2, done), count - done,
                              out + done);
}

// --- F32 ---

CAKE_AVX2 void split_f32(const uint8_t* in, size_t count, uint8_t* upper, uint8_t* mid,
                         uint8_t* low) {
  const size_t whole = whole_groups(count, 8);
  const __m256i by_byte = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0,
                                           4, 8, 12, 1, 5, 9, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  const __m256i by_plane = _mm256_setr_epi32(0, 4, 1, 5, 2, 3, 6, 7);
  for (size_t at = 0; at < whole; at += 8) {
    const __m256i planes =
        _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(load(in + 4 * at), by_byte), by_plane);
    const __m128i lower = _mm256_castsi256_si128(planes);
    store_low_half(low + at, lower);
    store_high_half(mid + at, lower);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(upper + 2 * at),
                     _mm256_extracti128_si256(planes, 1));
  }
  scalar_kernels().split_f32(in + 4 * whole, count - whole, upper + 2 * whole, mid + whole,
                             low + whole);
}

CAKE_AVX2 void merge_f32(const uint8_t* upper, const uint8_t* mid, const uint8_t* low, size_t count,
                         uint8_t* out) {
  const size_t whole = whole_groups(count, 16);
  for (size_t at = 0; at < whole; at += 16) {
    const __m256i lows =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low + at)));
    const __m256i mids =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(mid + at)));
    const __m256i lower = _mm256_or_si256(lows, _mm256_slli_epi16(mids, 8));
    const __m256i uppers = load(upper + 2 * at);
    const __m256i a = _mm256_unpacklo_epi16(lower, uppers);
    const __m256i b = _mm256_unpackhi_epi16(lower, uppers);
    store(out + 4 * at, _mm256_permute2x128_si256(a, b, 0x20));
    store(out + 4 * at + 32, _mm256_permute2x128_si256(a, b, 0x31));
  }
  scalar_kernels().merge_f32(upper + 2 * whole, mid + whole, low + whole, count - whole,
                             out + 4 * whole);
}

CAKE_AVX2 bool narrow_f32(const uint8_t* in, size_t count, uint8_t* out) {
  const size_t whole = whole_groups(count, 8);
  const __m128i infinite = _mm_set1_epi16(0x7c00);
  for (size_t at = 0; at < whole; at += 8) {
    const __m256i wide = load(in + 4 * at);
    const __m128i half = _mm256_cvtps_ph(_mm256_castsi256_ps(wide), _MM_FROUND_TO_NEAREST_INT);
    const __m256i again = _mm256_castps_si256(_mm256_cvtph_ps(half));
    const __m128i is_infinite = _mm_cmpeq_epi16(_mm_and_si128(half, infinite), infinite);
    if (_mm256_movemask_epi8(_mm256_cmpeq_epi32(again, wide)) != -1 ||
        _mm_movemask_epi8(is_infinite) != 0)
      return false;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * at), half);
  }
  return scalar_kernels().narrow_f32(in + 4 * whole, count - whole, out + 2 * whole);
}

CAKE_AVX2 void widen_f16(const uint8_t* in, size_t count, uint8_t* out) {
  const size_t whole = whole_groups(count, 8);
  for (size_t at = 0; at < whole; at += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * at));
    store(out + 4 * at, _mm256_castps_si256(_mm256_cvtph_ps(half)));
  }
  scalar_kernels().widen_f16(in + 2 * whole, count - whole, out + 4 * whole);
}

}  // namespace
}  // namespace avx2

const CodecKernels* avx2_kernels() {
  // F16C and BMI came no later than AVX2.
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2")) return nullptr;
  static constexpr CodecKernels kKernels = {"avx2",
                                            true,
                                            avx2::rans_decode,
                                            avx2::rans_encode,
                                            avx2::map_entries,
                                            avx2::split_bf16,
                                            avx2::merge_bf16,
                                            avx2::split_f16,
                                            avx2::merge_f16,
                                            avx2::split_fp8,
                                            avx2::merge_fp8,
                                            avx2::split_int8,
                                            avx2::merge_int8,
                                            avx2::split_f32,
                                            avx2::merge_f32,
                                            avx2::narrow_f32,
                                            avx2::widen_f16};
  return &kKernels;
}

}  // namespace cake

#else

namespace cake {

const CodecKernels* avx2_kernels() {
  return nullptr;
}

}  // namespace cake

#endif
