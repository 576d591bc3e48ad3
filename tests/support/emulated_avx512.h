// The AVX-512 intrinsics that store/codec uses, in plain C++: what each one does is written after
// the operation in Intel's Intrinsics Guide, not after what its callers expect.
//
// They stand in the namespace that the kernels are then compiled in (CAKE_AVX512_EMULATED) and
// have the names of the real ones, which must not be included before.  Vectors have no alignment,
// and loads and stores touch the bytes that the instruction touches and no others, so that a
// sanitizer sees what is out of bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cake::avx512_emulated {

template <size_t Bytes>
struct Vector {
  uint8_t byte[Bytes];

  static constexpr size_t kWords = Bytes / 2;
  uint16_t word(size_t i) const {
    return static_cast<uint16_t>(byte[2 * i] | byte[2 * i + 1] << 8);
  }
  void set_word(size_t i, unsigned value) {
    byte[2 * i] = static_cast<uint8_t>(value);
    byte[2 * i + 1] = static_cast<uint8_t>(value >> 8);
  }
};
using __m128i = Vector<16>;
using __m256i = Vector<32>;
using __m512i = Vector<64>;
using __mmask32 = uint32_t;
using __mmask64 = uint64_t;

// --- The shapes that most of them have ---

template <typename V, typename F>
V each_byte(const F& value_of) {
  V made;
  for (size_t i = 0; i < sizeof(V); i++) made.byte[i] = static_cast<uint8_t>(value_of(i));
  return made;
}
template <typename V, typename F>
V each_word(const F& value_of) {
  V made;
  for (size_t i = 0; i < V::kWords; i++) made.set_word(i, static_cast<unsigned>(value_of(i)));
  return made;
}
template <typename F>
__mmask64 byte_mask(const F& is_set) {
  __mmask64 mask = 0;
  for (size_t i = 0; i < 64; i++) mask |= __mmask64{is_set(i)} << i;
  return mask;
}
template <typename F>
__mmask32 word_mask(const F& is_set) {
  __mmask32 mask = 0;
  for (size_t i = 0; i < 32; i++) mask |= __mmask32{is_set(i)} << i;
  return mask;
}
// Merge masking: from `src` where the mask has no bit.
inline __m512i merge_bytes_by(__m512i src, __mmask64 k, __m512i value) {
  return each_byte<__m512i>([&](size_t i) { return k >> i & 1 ? value.byte[i] : src.byte[i]; });
}
inline __m512i merge_words_by(__m512i src, __mmask32 k, __m512i value) {
  return each_word<__m512i>([&](size_t i) { return k >> i & 1 ? value.word(i) : src.word(i); });
}
template <typename V>
V load_vector(const void* from) {
  V made;
  std::memcpy(made.byte, from, sizeof(V));
  return made;
}
// What an instruction leaves undefined.
template <typename V>
V undefined() {
  return each_byte<V>([](size_t i) { return 0xa5 ^ i; });
}

// --- Loads and stores ---

inline __m512i _mm512_loadu_si512(const void* from) {
  return load_vector<__m512i>(from);
}
inline __m256i _mm256_loadu_si256(const __m256i* from) {
  return load_vector<__m256i>(from);
}
inline __m128i _mm_loadu_si128(const __m128i* from) {
  return load_vector<__m128i>(from);
}
inline void _mm512_storeu_si512(void* to, __m512i value) {
  std::memcpy(to, value.byte, sizeof value);
}
inline void _mm256_storeu_si256(__m256i* to, __m256i value) {
  std::memcpy(to, value.byte, sizeof value);
}
inline void _mm_storeu_si128(__m128i* to, __m128i value) {
  std::memcpy(to, value.byte, sizeof value);
}
// VMOVDQU8 with zeroing: bytes outside the mask are not read.
inline __m512i _mm512_maskz_loadu_epi8(__mmask64 k, const void* from) {
  return each_byte<__m512i>(
      [&](size_t i) { return k >> i & 1 ? static_cast<const uint8_t*>(from)[i] : 0; });
}

// --- Parts ---

inline __m512i _mm512_setzero_si512() {
  return each_byte<__m512i>([](size_t) { return 0; });
}
inline __m512i _mm512_set1_epi8(char value) {
  return each_byte<__m512i>([&](size_t) { return value; });
}
inline __m256i _mm256_set1_epi8(char value) {
  return each_byte<__m256i>([&](size_t) { return value; });
}
inline __m512i _mm512_set1_epi16(short value) {
  return each_word<__m512i>([&](size_t) { return value; });
}
inline __m256i _mm512_castsi512_si256(__m512i a) {
  return load_vector<__m256i>(a.byte);
}
inline __m128i _mm512_castsi512_si128(__m512i a) {
  return load_vector<__m128i>(a.byte);
}
inline __m512i _mm512_castsi256_si512(__m256i a) {
  __m512i made = undefined<__m512i>();
  std::memcpy(made.byte, a.byte, sizeof a);
  return made;
}
inline __m512i _mm512_castsi128_si512(__m128i a) {
  __m512i made = undefined<__m512i>();
  std::memcpy(made.byte, a.byte, sizeof a);
  return made;
}
inline __m512i _mm512_zextsi256_si512(__m256i a) {
  __m512i made = _mm512_setzero_si512();
  std::memcpy(made.byte, a.byte, sizeof a);
  return made;
}
// VEXTRACTI64X4, VEXTRACTI32X4, VINSERTI64X4, VINSERTI32X4: part imm8 of 256 or 128 bits.
inline __m256i _mm512_extracti64x4_epi64(__m512i a, int imm8) {
  return load_vector<__m256i>(a.byte + 32 * (imm8 & 1));
}
inline __m128i _mm512_extracti32x4_epi32(__m512i a, int imm8) {
  return load_vector<__m128i>(a.byte + 16 * (imm8 & 3));
}
inline __m512i _mm512_inserti64x4(__m512i a, __m256i b, int imm8) {
  std::memcpy(a.byte + 32 * (imm8 & 1), b.byte, sizeof b);
  return a;
}
inline __m512i _mm512_inserti32x4(__m512i a, __m128i b, int imm8) {
  std::memcpy(a.byte + 16 * (imm8 & 3), b.byte, sizeof b);
  return a;
}
// VMOVDQU8 between registers, merging.
inline __m512i _mm512_mask_mov_epi8(__m512i src, __mmask64 k, __m512i a) {
  return merge_bytes_by(src, k, a);
}

// --- Bits ---

inline __m512i _mm512_and_si512(__m512i a, __m512i b) {
  return each_byte<__m512i>([&](size_t i) { return a.byte[i] & b.byte[i]; });
}
// (NOT a) AND b
inline __m512i _mm512_andnot_si512(__m512i a, __m512i b) {
  return each_byte<__m512i>([&](size_t i) { return ~a.byte[i] & b.byte[i]; });
}
inline __m512i _mm512_or_si512(__m512i a, __m512i b) {
  return each_byte<__m512i>([&](size_t i) { return a.byte[i] | b.byte[i]; });
}
inline __m256i _mm256_or_si256(__m256i a, __m256i b) {
  return each_byte<__m256i>([&](size_t i) { return a.byte[i] | b.byte[i]; });
}
// VPTERNLOGQ: the three bits, that of `a` highest, choose a bit of imm8.
inline __m512i _mm512_ternarylogic_epi64(__m512i a, __m512i b, __m512i c, int imm8) {
  return each_byte<__m512i>([&](size_t i) {
    unsigned bits = 0;
    for (unsigned bit = 0; bit < 8; bit++) {
      const unsigned index =
          (a.byte[i] >> bit & 1U) << 2 | (b.byte[i] >> bit & 1U) << 1 | (c.byte[i] >> bit & 1U);
      bits |= (static_cast<unsigned>(imm8) >> index & 1U) << bit;
    }
    return bits;
  });
}
// VPSLLW, VPSRLW: counts above 15 give 0.
template <typename V>
V words_left(V a, unsigned count) {
  return each_word<V>([&](size_t i) { return count > 15 ? 0U : unsigned{a.word(i)} << count; });
}
template <typename V>
V words_right(V a, unsigned count) {
  return each_word<V>([&](size_t i) { return count > 15 ? 0U : unsigned{a.word(i)} >> count; });
}
inline __m512i _mm512_slli_epi16(__m512i a, unsigned count) {
  return words_left(a, count);
}
inline __m512i _mm512_srli_epi16(__m512i a, unsigned count) {
  return words_right(a, count);
}
inline __m256i _mm256_slli_epi16(__m256i a, int count) {
  return words_left(a, static_cast<unsigned>(count));
}
inline __m256i _mm256_srli_epi16(__m256i a, int count) {
  return words_right(a, static_cast<unsigned>(count));
}
// VPSRLVW: a count for each word.
inline __m512i _mm512_srlv_epi16(__m512i a, __m512i count) {
  return each_word<__m512i>(
      [&](size_t i) { return count.word(i) > 15 ? 0U : unsigned{a.word(i)} >> count.word(i); });
}
// VPSHLDW: the upper half of a:b shifted left by imm8 (modulo 16).
inline __m512i _mm512_shldi_epi16(__m512i a, __m512i b, int imm8) {
  return each_word<__m512i>([&](size_t i) {
    const uint32_t both = uint32_t{a.word(i)} << 16 | b.word(i);
    return both << (imm8 & 15) >> 16;
  });
}

// --- Arithmetic ---

inline __m512i _mm512_add_epi8(__m512i a, __m512i b) {
  return each_byte<__m512i>([&](size_t i) { return a.byte[i] + b.byte[i]; });
}
inline __m512i _mm512_sub_epi8(__m512i a, __m512i b) {
  return each_byte<__m512i>([&](size_t i) { return a.byte[i] - b.byte[i]; });
}
inline __m512i _mm512_add_epi16(__m512i a, __m512i b) {
  return each_word<__m512i>([&](size_t i) { return a.word(i) + b.word(i); });
}
inline __m512i _mm512_sub_epi16(__m512i a, __m512i b) {
  return each_word<__m512i>([&](size_t i) { return a.word(i) - b.word(i); });
}
inline __m512i _mm512_mask_add_epi8(__m512i src, __mmask64 k, __m512i a, __m512i b) {
  return merge_bytes_by(src, k, _mm512_add_epi8(a, b));
}
inline __m512i _mm512_mask_add_epi16(__m512i src, __mmask32 k, __m512i a, __m512i b) {
  return merge_words_by(src, k, _mm512_add_epi16(a, b));
}
inline __m512i _mm512_mask_sub_epi16(__m512i src, __mmask32 k, __m512i a, __m512i b) {
  return merge_words_by(src, k, _mm512_sub_epi16(a, b));
}
inline __m512i _mm512_mullo_epi16(__m512i a, __m512i b) {
  return each_word<__m512i>([&](size_t i) { return uint32_t{a.word(i)} * b.word(i); });
}
inline __m512i _mm512_mulhi_epu16(__m512i a, __m512i b) {
  return each_word<__m512i>([&](size_t i) { return uint32_t{a.word(i)} * b.word(i) >> 16; });
}

// --- Masks ---

inline __mmask64 _mm512_movepi8_mask(__m512i a) {
  return byte_mask([&](size_t i) { return a.byte[i] >= 0x80; });
}
inline __mmask64 _mm512_cmpeq_epi8_mask(__m512i a, __m512i b) {
  return byte_mask([&](size_t i) { return a.byte[i] == b.byte[i]; });
}
inline __mmask64 _mm512_cmpge_epu8_mask(__m512i a, __m512i b) {
  return byte_mask([&](size_t i) { return a.byte[i] >= b.byte[i]; });
}
inline __mmask64 _mm512_cmplt_epu8_mask(__m512i a, __m512i b) {
  return byte_mask([&](size_t i) { return a.byte[i] < b.byte[i]; });
}
inline __mmask32 _mm512_cmpge_epu16_mask(__m512i a, __m512i b) {
  return word_mask([&](size_t i) { return a.word(i) >= b.word(i); });
}
inline __mmask64 _mm512_test_epi8_mask(__m512i a, __m512i b) {
  return byte_mask([&](size_t i) { return (a.byte[i] & b.byte[i]) != 0; });
}
inline __mmask64 _mm512_testn_epi8_mask(__m512i a, __m512i b) {
  return byte_mask([&](size_t i) { return (a.byte[i] & b.byte[i]) == 0; });
}

// --- Permutations ---

// VPERMB: the six lowest bits of an index count.
inline __m512i _mm512_permutexvar_epi8(__m512i idx, __m512i a) {
  return each_byte<__m512i>([&](size_t i) { return a.byte[idx.byte[i] & 63]; });
}
inline __m512i _mm512_mask_permutexvar_epi8(__m512i src, __mmask64 k, __m512i idx, __m512i a) {
  return merge_bytes_by(src, k, _mm512_permutexvar_epi8(idx, a));
}
inline __m512i _mm512_maskz_permutexvar_epi8(__mmask64 k, __m512i idx, __m512i a) {
  return merge_bytes_by(_mm512_setzero_si512(), k, _mm512_permutexvar_epi8(idx, a));
}
// VPERMW: the five lowest bits.
inline __m512i _mm512_permutexvar_epi16(__m512i idx, __m512i a) {
  return each_word<__m512i>([&](size_t i) { return a.word(idx.word(i) & 31U); });
}
// VPERMI2B: bit 6 of an index chooses the table.
inline __m512i _mm512_permutex2var_epi8(__m512i a, __m512i idx, __m512i b) {
  return each_byte<__m512i>([&](size_t i) {
    const size_t place = idx.byte[i] & 63;
    return idx.byte[i] & 64 ? b.byte[place] : a.byte[place];
  });
}
// VPEXPANDB: from the front of `a`, one byte for each bit of the mask.
inline __m512i _mm512_mask_expand_epi8(__m512i src, __mmask64 k, __m512i a) {
  __m512i made = src;
  size_t next = 0;
  for (size_t i = 0; i < 64; i++)
    if (k >> i & 1) made.byte[i] = a.byte[next++];
  return made;
}
// VPCOMPRESSB with zeroing.
inline __m512i _mm512_maskz_compress_epi8(__mmask64 k, __m512i a) {
  __m512i made = _mm512_setzero_si512();
  size_t next = 0;
  for (size_t i = 0; i < 64; i++)
    if (k >> i & 1) made.byte[next++] = a.byte[i];
  return made;
}

}  // namespace cake::avx512_emulated
