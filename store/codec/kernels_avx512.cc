#include "store/codec/kernels.h"

#include "store/codec/avx512.h"

#if defined(__x86_64__) || defined(CAKE_AVX512_EMULATED)

#include "store/codec/packing.h"

namespace cake::CAKE_AVX512_NAMESPACE {

namespace {

// Packed planes have rows of 32 elements, so a vector of 64 is two: 2K below, 2K + 1 above.
static_assert(kRowBytes == 32);

// What is left behind whole groups goes to the scalar kernels.
constexpr size_t whole_groups(size_t count, size_t group) {
  return count / group * group;
}

using Indices = std::array<uint8_t, 64>;

// Every second byte of two vectors.
constexpr Indices every_second(unsigned first) {
  Indices indices{};
  for (unsigned i = 0; i < 64; i++) indices[i] = static_cast<uint8_t>(first + 2 * i);
  return indices;
}
// Bytes of two vectors in turn, from `first` on.
constexpr Indices in_turn(unsigned first) {
  Indices indices{};
  for (unsigned i = 0; i < 64; i++) indices[i] = static_cast<uint8_t>(first + i / 2 + i % 2 * 64);
  return indices;
}
alignas(64) constexpr Indices kEvenBytes = every_second(0);
alignas(64) constexpr Indices kOddBytes = every_second(1);
alignas(64) constexpr Indices kLowerInTurn = in_turn(0);
alignas(64) constexpr Indices kUpperInTurn = in_turn(32);

// Lower and upper bytes of 64 16-bit elements, and back.
CAKE_AVX512_INLINE void take_apart(__m512i a, __m512i b, __m512i& low, __m512i& high) {
  low = _mm512_permutex2var_epi8(a, load(kEvenBytes.data()), b);
  high = _mm512_permutex2var_epi8(a, load(kOddBytes.data()), b);
}
CAKE_AVX512_INLINE void put_together(__m512i low, __m512i high, __m512i& a, __m512i& b) {
  a = _mm512_permutex2var_epi8(low, load(kLowerInTurn.data()), high);
  b = _mm512_permutex2var_epi8(low, load(kUpperInTurn.data()), high);
}

// --- BF16 ---
//
// Turned left by two bits, an element's upper byte is exponent (less its top bit) and top mantissa
// bit, its lower one the other 6 mantissa bits, the sign and the exponent's top bit.  A bias is
// then twice itself, taken from 9 bits: the top bit and the upper byte.

CAKE_AVX512_INLINE __m512i turn_left(__m512i elements) {
  return _mm512_shldi_epi16(elements, elements, 2);
}
CAKE_AVX512_INLINE __m512i turn_right(__m512i elements) {
  return _mm512_shldi_epi16(elements, elements, 14);
}

struct Bias {
  __m512i twice;
  __mmask64 top;  // all lanes or none
};
CAKE_AVX512_INLINE Bias make_bias(uint8_t bias) {
  return {all_bytes(2 * bias), bias >> 7 != 0 ? ~uint64_t{0} : 0};
}

// Bit 2K in the lower half, 2K + 1 in the upper.
template <int K>
CAKE_AVX512_INLINE __m512i row_bits() {
  return from_halves(_mm256_set1_epi8(static_cast<char>(1 << (2 * K))),
                     _mm256_set1_epi8(static_cast<char>(2 << (2 * K))));
}

template <int K>
CAKE_AVX512_INLINE void split_bf16_rows(const uint8_t* in, const Bias& bias, uint8_t* symbols,
                                        __m512i& tops, __m512i& rest) {
  __m512i low, high;
  take_apart(turn_left(load(in + 128 * K)), turn_left(load(in + 128 * K + 64)), low, high);
  store(symbols + 64 * K, _mm512_sub_epi8(high, bias.twice));
  const __mmask64 top = _mm512_test_epi8_mask(low, all_bytes(1)) ^
                        _mm512_cmplt_epu8_mask(high, bias.twice) ^ bias.top;
  tops = _mm512_mask_add_epi8(tops, top, tops, row_bits<K>());
  // Bit 7 is left to whatever came there.
  rest = select(all_bytes(0x3f), _mm512_srli_epi16(low, 2), _mm512_slli_epi16(low, 5));
}

// The rows' 7 bits, and above them the bits of `last`: the last row, and in the lower half shifted
// left by one.
template <int K>
CAKE_AVX512_INLINE __m512i with_last(__m512i rest, __m512i last) {
  return select(all_bytes(0x80), _mm512_slli_epi16(last, 6 - 2 * K), rest);
}

CAKE_AVX512 void split_bf16(const uint8_t* in, size_t count, uint8_t bias, uint8_t* symbols,
                            uint8_t* tops, uint8_t* rest) {
  const Bias bias_bytes = make_bias(bias);
  const size_t whole = whole_groups(count, kGroup7);
  for (size_t at = 0; at < whole; at += kGroup7) {
    const uint8_t* const from = in + 2 * at;
    __m512i top = _mm512_setzero_si512(), rows0, rows1, rows2, rows3;
    split_bf16_rows<0>(from, bias_bytes, symbols + at, top, rows0);
    split_bf16_rows<1>(from, bias_bytes, symbols + at, top, rows1);
    split_bf16_rows<2>(from, bias_bytes, symbols + at, top, rows2);
    split_bf16_rows<3>(from, bias_bytes, symbols + at, top, rows3);
    store_half(tops + packed_bytes(1, at), _mm256_or_si256(low_half(top), high_half(top)));
    const __m256i last_row = high_half(rows3);
    const __m512i last = from_halves(_mm256_slli_epi16(last_row, 1), last_row);
    uint8_t* const rest_at = rest + packed_bytes(7, at);
    store(rest_at, with_last<0>(rows0, last));
    store(rest_at + 64, with_last<1>(rows1, last));
    store(rest_at + 128, with_last<2>(rows2, last));
    store_half(rest_at + 192, low_half(with_last<3>(rows3, last)));
  }
  scalar_kernels().split_bf16(in + 2 * whole, count - whole, bias, symbols + whole,
                              tops + packed_bytes(1, whole), rest + packed_bytes(7, whole));
}

template <int K>
CAKE_AVX512_INLINE void merge_bf16_rows(const uint8_t* symbols, __m512i tops, __m512i rest,
                                        const Bias& bias, uint8_t* out) {
  const __m512i high = _mm512_add_epi8(load(symbols + 64 * K), bias.twice);
  const __m512i sign = _mm512_and_si512(_mm512_srli_epi16(rest, 5), all_bytes(2));
  __m512i low = select(all_bytes(0xfc), _mm512_slli_epi16(rest, 2), sign);
  const __mmask64 top = _mm512_test_epi8_mask(tops, row_bits<K>()) ^
                        _mm512_cmplt_epu8_mask(high, bias.twice) ^ bias.top;
  low = _mm512_mask_add_epi8(low, top, low, all_bytes(1));
  __m512i a, b;
  put_together(low, high, a, b);
  store(out + 128 * K, turn_right(a));
  store(out + 128 * K + 64, turn_right(b));
}

// Adds the rows' top bits to the last row.
template <int K>
CAKE_AVX512_INLINE __m512i gather_last(__m512i last, __m512i rows) {
  return _mm512_mask_add_epi8(last, _mm512_movepi8_mask(rows), last, row_bits<K>());
}

CAKE_AVX512 void merge_bf16(const uint8_t* symbols, const uint8_t* tops, const uint8_t* rest,
                            size_t count, uint8_t bias, uint8_t* out) {
  const Bias bias_bytes = make_bias(bias);
  const size_t whole = whole_groups(count, kGroup7);
  for (size_t at = 0; at < whole; at += kGroup7) {
    const uint8_t* const rest_at = rest + packed_bytes(7, at);
    const __m512i rows0 = load(rest_at), rows1 = load(rest_at + 64), rows2 = load(rest_at + 128);
    const __m512i row6 = _mm512_zextsi256_si512(load_half(rest_at + 192));
    __m512i last = gather_last<0>(_mm512_setzero_si512(), rows0);
    last = gather_last<1>(last, rows1);
    last = gather_last<2>(last, rows2);
    last = gather_last<3>(last, row6);
    const __m512i rows3 =
        from_halves(low_half(row6), _mm256_or_si256(low_half(last), high_half(last)));
    const __m256i tops_row = load_half(tops + packed_bytes(1, at));
    const __m512i top = from_halves(tops_row, tops_row);
    merge_bf16_rows<0>(symbols + at, top, rows0, bias_bytes, out + 2 * at);
    merge_bf16_rows<1>(symbols + at, top, rows1, bias_bytes, out + 2 * at);
    merge_bf16_rows<2>(symbols + at, top, rows2, bias_bytes, out + 2 * at);
    merge_bf16_rows<3>(symbols + at, top, rows3, bias_bytes, out + 2 * at);
  }
  scalar_kernels().merge_bf16(symbols + whole, tops + packed_bytes(1, whole),
                              rest + packed_bytes(7, whole), count - whole, bias, out + 2 * whole);
}

// --- F16, FP8, int8: a symbol of 6 bits and a pair ---

// What counts of a pair are its two lowest bits; a symbol's upper two are dropped.
enum class Shape { inner_outer, upper_lower };

template <Shape S>
CAKE_AVX512_INLINE __m512i symbol_of(__m512i bytes) {
  return _mm512_and_si512(_mm512_srli_epi16(bytes, S == Shape::inner_outer ? 1 : 2),
                          all_bytes(0x3f));
}
template <Shape S>
CAKE_AVX512_INLINE __m512i pair_of(__m512i bytes) {
  const __m512i pair =
      S == Shape::inner_outer ? select(all_bytes(1), bytes, _mm512_srli_epi16(bytes, 6)) : bytes;
  return _mm512_and_si512(pair, all_bytes(3));
}
template <Shape S>
CAKE_AVX512_INLINE __m512i from_symbol_pair(__m512i symbol, __m512i pair) {
  if constexpr (S == Shape::upper_lower)
    return select(all_bytes(0xfc), _mm512_slli_epi16(symbol, 2), pair);
  else
    return select(all_bytes(0x7e), _mm512_slli_epi16(symbol, 1),
                  select(all_bytes(0x80), _mm512_slli_epi16(pair, 6), pair));
}

// The pairs of 128 elements in 32 bytes, and back, rows 0 and 1 first.
CAKE_AVX512_INLINE void store_pairs(__m512i first, __m512i second, uint8_t* out) {
  const __m512i both = _mm512_or_si512(first, _mm512_slli_epi16(second, 4));
  store_half(out, _mm256_or_si256(low_half(both), _mm256_slli_epi16(high_half(both), 2)));
}
CAKE_AVX512_INLINE void load_pairs(const uint8_t* in, __m512i& first, __m512i& second) {
  const __m256i packed = load_half(in);
  first = from_halves(packed, _mm256_srli_epi16(packed, 2));
  second = _mm512_srli_epi16(first, 4);
}

CAKE_AVX512_INLINE __m512i split_f16_rows(const uint8_t* in, uint8_t* symbols, uint8_t* lows) {
  __m512i low, high;
  take_apart(load(in), load(in + 64), low, high);
  store(lows, low);
  store(symbols, symbol_of<Shape::inner_outer>(high));
  return pair_of<Shape::inner_outer>(high);
}
CAKE_AVX512 void split_f16(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs,
                           uint8_t* lows) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t at = 0; at < whole; at += kGroup2) {
    const __m512i first = split_f16_rows(in + 2 * at, symbols + at, lows + at);
    const __m512i second = split_f16_rows(in + 2 * at + 128, symbols + at + 64, lows + at + 64);
    store_pairs(first, second, pairs + packed_bytes(2, at));
  }
  scalar_kernels().split_f16(in + 2 * whole, count - whole, symbols + whole,
                             pairs + packed_bytes(2, whole), lows + whole);
}

CAKE_AVX512_INLINE void merge_f16_rows(const uint8_t* symbols, __m512i pair, const uint8_t* lows,
                                       uint8_t* out) {
  __m512i a, b;
  put_together(load(lows), from_symbol_pair<Shape::inner_outer>(load(symbols), pair), a, b);
  store(out, a);
  store(out + 64, b);
}
CAKE_AVX512 void merge_f16(const uint8_t* symbols, const uint8_t* pairs, const uint8_t* lows,
                           size_t count, uint8_t* out) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t at = 0; at < whole; at += kGroup2) {
    __m512i first, second;
    load_pairs(pairs + packed_bytes(2, at), first, second);
    merge_f16_rows(symbols + at, first, lows + at, out + 2 * at);
    merge_f16_rows(symbols + at + 64, second, lows + at + 64, out + 2 * at + 128);
  }
  scalar_kernels().merge_f16(symbols + whole, pairs + packed_bytes(2, whole), lows + whole,
                             count - whole, out + 2 * whole);
}

template <Shape S>
CAKE_AVX512_INLINE size_t split_bytes(const uint8_t* in, size_t count, uint8_t* symbols,
                                      uint8_t* pairs) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t at = 0; at < whole; at += kGroup2) {
    const __m512i first = load(in + at), second = load(in + at + 64);
    store(symbols + at, symbol_of<S>(first));
    store(symbols + at + 64, symbol_of<S>(second));
    store_pairs(pair_of<S>(first), pair_of<S>(second), pairs + packed_bytes(2, at));
  }
  return whole;
}
template <Shape S>
CAKE_AVX512_INLINE size_t merge_bytes(const uint8_t* symbols, const uint8_t* pairs, size_t count,
                                      uint8_t* out) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t at = 0; at < whole; at += kGroup2) {
    __m512i first, second;
    load_pairs(pairs + packed_bytes(2, at), first, second);
    store(out + at, from_symbol_pair<S>(load(symbols + at), first));
    store(out + at + 64, from_symbol_pair<S>(load(symbols + at + 64), second));
  }
  return whole;
}

CAKE_AVX512 void split_fp8(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
  const size_t done = split_bytes<Shape::inner_outer>(in, count, symbols, pairs);
  scalar_kernels().split_fp8(in + done, count - done, symbols + done,
                             pairs + packed_bytes(2, done));
}
CAKE_AVX512 void merge_fp8(const uint8_t* symbols, const uint8_t* pairs, size_t count,
                           uint8_t* out) {
  const size_t done = merge_bytes<Shape::inner_outer>(symbols, pairs, count, out);
  scalar_kernels().merge_fp8(symbols + done, pairs + packed_bytes(2, done), count - done,
                             out + done);
}
CAKE_AVX512 void split_int8(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
  const size_t done = split_bytes<Shape::upper_lower>(in, count, symbols, pairs);
  scalar_kernels().split_int8(in + done, count - done, symbols + done,
                              pairs + packed_bytes(2, done));
}
CAKE_AVX512 void merge_int8(const uint8_t* symbols, const uint8_t* pairs, size_t count,
                            uint8_t* out) {
  const size_t done = merge_bytes<Shape::upper_lower>(symbols, pairs, count, out);
  scalar_kernels().merge_int8(symbols + done, pairs + packed_bytes(2, done), count - done,
                              out + done);
}

// --- F32 ---

// 16 elements as their low bytes, their middle bytes and their upper halves, and back.
constexpr unsigned plane_place(unsigned byte) {
  const unsigned element = byte / 4;
  return byte % 4 < 2 ? byte % 4 * 16 + element : 32 + 2 * element + byte % 2;
}
constexpr Indices from_planes() {
  Indices indices{};
  for (unsigned i = 0; i < 64; i++) indices[i] = static_cast<uint8_t>(plane_place(i));
  return indices;
}
constexpr Indices to_planes() {
  Indices indices{};
  for (unsigned i = 0; i < 64; i++) indices[plane_place(i)] = static_cast<uint8_t>(i);
  return indices;
}
alignas(64) constexpr Indices kFromPlanes = from_planes();
alignas(64) constexpr Indices kToPlanes = to_planes();

CAKE_AVX512_INLINE void store_quarter(uint8_t* to, __m128i value) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value);
}
CAKE_AVX512_INLINE __m128i load_quarter(const uint8_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

CAKE_AVX512 void split_f32(const uint8_t* in, size_t count, uint8_t* upper, uint8_t* mid,
                           uint8_t* low) {
  const size_t whole = whole_groups(count, 16);
  const __m512i places = load(kToPlanes.data());
  for (size_t at = 0; at < whole; at += 16) {
    const __m512i planes = look_up(load(in + 4 * at), places);
    store_quarter(low + at, _mm512_castsi512_si128(planes));
    store_quarter(mid + at, _mm512_extracti32x4_epi32(planes, 1));
    store_half(upper + 2 * at, high_half(planes));
  }
  scalar_kernels().split_f32(in + 4 * whole, count - whole, upper + 2 * whole, mid + whole,
                             low + whole);
}

CAKE_AVX512 void merge_f32(const uint8_t* upper, const uint8_t* mid, const uint8_t* low,
                           size_t count, uint8_t* out) {
  const size_t whole = whole_groups(count, 16);
  const __m512i places = load(kFromPlanes.data());
  for (size_t at = 0; at < whole; at += 16) {
    const __m512i lower = _mm512_inserti32x4(_mm512_castsi128_si512(load_quarter(low + at)),
                                             load_quarter(mid + at), 1);
    const __m512i planes = _mm512_inserti64x4(lower, load_half(upper + 2 * at), 1);
    store(out + 4 * at, look_up(planes, places));
  }
  scalar_kernels().merge_f32(upper + 2 * whole, mid + whole, low + whole, count - whole,
                             out + 4 * whole);
}

}  // namespace

CodecKernels make_kernels(const CodecKernels& base) {
  return {"avx512",   true,      rans_decode, rans_encode,     map_entries,   split_bf16,
          merge_bf16, split_f16, merge_f16,   split_fp8,       merge_fp8,     split_int8,
          merge_int8, split_f32, merge_f32,   base.narrow_f32, base.widen_f16};
}

}  // namespace cake::CAKE_AVX512_NAMESPACE

#endif

#ifndef CAKE_AVX512_EMULATED

namespace cake {

const CodecKernels* avx512_kernels() {
#if defined(__x86_64__)
  const CodecKernels* const base = avx2_kernels();
  // POPCNT and BMI came long before.
  if (base == nullptr || !__builtin_cpu_supports("avx512f") ||
      !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512vbmi") || !__builtin_cpu_supports("avx512vbmi2"))
    return nullptr;
  static const CodecKernels kernels = avx512::make_kernels(*base);
  return &kernels;
#else
  return nullptr;
#endif
}

}  // namespace cake

#endif
