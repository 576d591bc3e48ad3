// Shared by the AVX2 kernels.  Functions that use these are compiled for AVX2 whatever the rest of
// the program is compiled for, and called only where the processor has it.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include "store/codec/kernels.h"

#define CAKE_AVX2 __attribute__((target("avx2,bmi,bmi2,f16c,popcnt")))
#define CAKE_AVX2_INLINE CAKE_AVX2 __attribute__((always_inline)) inline

namespace cake::avx2 {

CAKE_AVX2_INLINE __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
CAKE_AVX2_INLINE void store(void* to, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), value);
}
// 8 bytes, at any alignment.
CAKE_AVX2_INLINE void store_low_half(void* to, __m128i value) {
  _mm_storel_epi64(static_cast<__m128i*>(to), value);
}
CAKE_AVX2_INLINE void store_high_half(void* to, __m128i value) {
  store_low_half(to, _mm_unpackhi_epi64(value, value));
}
// 16 bytes, in both halves.
CAKE_AVX2_INLINE __m256i load_twice(const void* from) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}
// Every byte shifted by itself and masked.
template <int Count>
CAKE_AVX2_INLINE __m256i bits_right(__m256i bytes, int mask) {
  return _mm256_and_si256(_mm256_srli_epi16(bytes, Count),
                          _mm256_set1_epi8(static_cast<char>(mask)));
}
template <int Count>
CAKE_AVX2_INLINE __m256i bits_left(__m256i bytes, int mask) {
  return _mm256_and_si256(_mm256_slli_epi16(bytes, Count),
                          _mm256_set1_epi8(static_cast<char>(mask)));
}

// A table of 16 * Parts bytes in registers; indices are below that.
template <int Parts>
struct Table {
  __m256i parts[Parts];
};
// Written out: a compiler leaves loops over registers as loops over memory at -O2.
template <int Parts>
CAKE_AVX2_INLINE void load_table(Table<Parts>& table, const uint8_t* from) {
  table.parts[0] = load_twice(from);
  if constexpr (Parts > 1) table.parts[1] = load_twice(from + 16);
  if constexpr (Parts > 2) {
    table.parts[2] = load_twice(from + 32);
    table.parts[3] = load_twice(from + 48);
  }
}
template <int Parts>
CAKE_AVX2_INLINE __m256i look_up(const Table<Parts>& table, __m256i index) {
  if constexpr (Parts == 1) {
    return _mm256_shuffle_epi8(table.parts[0], index);
  } else {
    const __m256i bit4 = _mm256_slli_epi16(index, 3);
    const __m256i low = _mm256_blendv_epi8(_mm256_shuffle_epi8(table.parts[0], index),
                                           _mm256_shuffle_epi8(table.parts[1], index), bit4);
    if constexpr (Parts == 2) {
      return low;
    } else {
      const __m256i high = _mm256_blendv_epi8(_mm256_shuffle_epi8(table.parts[2], index),
                                              _mm256_shuffle_epi8(table.parts[3], index), bit4);
      return _mm256_blendv_epi8(low, high, _mm256_slli_epi16(index, 2));
    }
  }
}
// 64 bytes of a table of 256 in memory, by four bits and two.
CAKE_AVX2_INLINE __m256i look_up_quarter(const uint8_t* from, __m256i digit, __m256i bit4,
                                         __m256i bit5) {
  const __m256i a = _mm256_shuffle_epi8(load_twice(from), digit);
  const __m256i b = _mm256_shuffle_epi8(load_twice(from + 16), digit);
  const __m256i c = _mm256_shuffle_epi8(load_twice(from + 32), digit);
  const __m256i d = _mm256_shuffle_epi8(load_twice(from + 48), digit);
  return _mm256_blendv_epi8(_mm256_blendv_epi8(a, b, bit4), _mm256_blendv_epi8(c, d, bit4), bit5);
}
CAKE_AVX2_INLINE __m256i look_up_256(const uint8_t* table, __m256i index) {
  const __m256i digit = _mm256_and_si256(index, _mm256_set1_epi8(15));
  const __m256i bit4 = _mm256_slli_epi16(index, 3);
  const __m256i bit5 = _mm256_slli_epi16(index, 2);
  const __m256i bit6 = _mm256_slli_epi16(index, 1);
  const __m256i low = _mm256_blendv_epi8(look_up_quarter(table, digit, bit4, bit5),
                                         look_up_quarter(table + 64, digit, bit4, bit5), bit6);
  const __m256i high = _mm256_blendv_epi8(look_up_quarter(table + 128, digit, bit4, bit5),
                                          look_up_quarter(table + 192, digit, bit4, bit5), bit6);
  return _mm256_blendv_epi8(low, high, index);
}

const uint8_t* rans_decode(RansStates& states, const RansTable& table, const uint8_t* in,
                           const uint8_t* end, uint8_t* out, size_t count, uint32_t* escapes);
uint8_t* rans_encode(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                     size_t count, uint8_t* out);
size_t map_entries(const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                   uint8_t* entries, uint8_t* escaped);

}  // namespace cake::avx2

#endif
