// Shared by the AVX-512 kernels.  Functions that use these are compiled for AVX-512 whatever the
// rest of the program is compiled for, and called only where the processor has it.
//
// Tests compile the same sources a second time, with every instruction as a function in plain C++
// (tests/support/emulated_avx512.h): few machines that build this have such a processor.
#pragma once

#if defined(__x86_64__) || defined(CAKE_AVX512_EMULATED)

#include <array>

#include "store/codec/kernels.h"

#ifdef CAKE_AVX512_EMULATED
#define CAKE_AVX512
#define CAKE_AVX512_INLINE inline
#define CAKE_AVX512_NAMESPACE avx512_emulated
#else
#include <immintrin.h>
#define CAKE_AVX512                                                       \
  __attribute__((                                                         \
      target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2," \
             "popcnt")))
#define CAKE_AVX512_INLINE CAKE_AVX512 __attribute__((always_inline)) inline
#define CAKE_AVX512_NAMESPACE avx512
#endif

namespace cake::CAKE_AVX512_NAMESPACE {

CAKE_AVX512_INLINE __m512i load(const void* from) {
  return _mm512_loadu_si512(from);
}
CAKE_AVX512_INLINE void store(void* to, __m512i value) {
  _mm512_storeu_si512(to, value);
}
CAKE_AVX512_INLINE __m256i load_half(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}
CAKE_AVX512_INLINE void store_half(void* to, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), value);
}
CAKE_AVX512_INLINE __m256i low_half(__m512i value) {
  return _mm512_castsi512_si256(value);
}
CAKE_AVX512_INLINE __m256i high_half(__m512i value) {
  return _mm512_extracti64x4_epi64(value, 1);
}
CAKE_AVX512_INLINE __m512i from_halves(__m256i low, __m256i high) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
CAKE_AVX512_INLINE __m512i all_bytes(int value) {
  return _mm512_set1_epi8(static_cast<char>(value));
}
// Bits of `a` where `mask` has ones, of `b` elsewhere.  The first operand is overwritten, so it had
// better not be the constant.
CAKE_AVX512_INLINE __m512i select(__m512i mask, __m512i a, __m512i b) {
  return _mm512_ternarylogic_epi64(a, b, mask, 0xe4);
}
// table[index % 64], byte by byte.
CAKE_AVX512_INLINE __m512i look_up(__m512i table, __m512i index) {
  return _mm512_permutexvar_epi8(index, table);
}

// 256 bytes in registers.
struct Table256 {
  __m512i parts[4];
};
CAKE_AVX512_INLINE Table256 load_table_256(const uint8_t* from) {
  return {{load(from), load(from + 64), load(from + 128), load(from + 192)}};
}
CAKE_AVX512_INLINE __m512i look_up_256(const Table256& table, __m512i index) {
  const __m512i low = _mm512_permutex2var_epi8(table.parts[0], index, table.parts[1]);
  const __m512i high = _mm512_permutex2var_epi8(table.parts[2], index, table.parts[3]);
  return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index), high);
}

const uint8_t* rans_decode(RansStates& states, const RansTable& table, const uint8_t* in,
                           const uint8_t* end, uint8_t* out, size_t count, uint32_t* escapes);
uint8_t* rans_encode(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                     size_t count, uint8_t* out);
size_t map_entries(const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                   uint8_t* entries, uint8_t* escaped);

// What gains nothing here (F32 that was F16 once) is taken from `base`.
CodecKernels make_kernels(const CodecKernels& base);

}  // namespace cake::CAKE_AVX512_NAMESPACE

#endif
