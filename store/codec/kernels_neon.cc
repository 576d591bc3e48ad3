// Rows of a group (see packing.h) are 32 bytes, two vectors; each half of a group by itself.
#include "store/codec/kernels.h"

#if defined(__AARCH64EL__)

#include "store/codec/neon.h"
#include "store/codec/packing.h"

namespace cake {

namespace neon {
namespace {

// What is left behind whole groups goes to the scalar kernels.
constexpr size_t whole_groups(size_t count, size_t group) {
  return count / group * group;
}

// Every byte shifted; by 0 as well, which the instruction to the right does not do.
template <int Count>
CAKE_NEON_INLINE uint8x16_t bits_left(uint8x16_t bytes) {
  return vshlq_n_u8(bytes, Count);
}
template <int Count>
CAKE_NEON_INLINE uint8x16_t bits_right(uint8x16_t bytes) {
  if constexpr (Count == 0)
    return bytes;
  else
    return vshrq_n_u8(bytes, Count);
}
// The upper Count bits of `upper`, then the upper 8 - Count of `lower`.
template <int Count>
CAKE_NEON_INLINE uint8x16_t join(uint8x16_t upper, uint8x16_t lower) {
  return vsriq_n_u8(upper, lower, Count);
}
// The bits of `mask` from the one, others from the other.
CAKE_NEON_INLINE uint8x16_t choose(uint8_t mask, uint8x16_t ones, uint8x16_t zeros) {
  return vbslq_u8(vdupq_n_u8(mask), ones, zeros);
}

// --- BF16 ---

// Sign, 8 bits of exponent, 7 of fraction, the first of which belongs to the symbol.  Answers the
// exponent.
template <int K>
CAKE_NEON_INLINE uint8x16_t split_symbols(uint8x16x2_t elements, uint8x16_t bias,
                                          uint8_t* symbols) {
  const uint8x16_t low = elements.val[0], high = elements.val[1];
  const uint8x16_t exponent = vsubq_u8(join<7>(bits_left<1>(high), low), bias);
  vst1q_u8(symbols + kRowBytes * K, join<7>(bits_left<1>(exponent), bits_left<1>(low)));
  return exponent;
}
// A row of the first seven; bit K of `last`, the eighth row's rest, goes along.
template <int K>
CAKE_NEON_INLINE void split_bf16_row(const uint8_t* in, uint8x16_t bias, uint8x16_t last,
                                     uint8_t* symbols, uint8x16_t& tops, uint8_t* rest) {
  const uint8x16x2_t elements = vld2q_u8(in + 2 * kRowBytes * K);
  tops = join<1>(split_symbols<K>(elements, bias, symbols), tops);
  vst1q_u8(rest + kRowBytes * K,
           choose(0x3f, elements.val[0], join<1>(bits_left<7 - K>(last), elements.val[1])));
}

CAKE_NEON_INLINE void split_bf16_half(const uint8_t* in, uint8x16_t bias, uint8_t* symbols,
                                      uint8_t* tops, uint8_t* rest) {
  const uint8x16x2_t eighth = vld2q_u8(in + 2 * kRowBytes * 7);
  const uint8x16_t last = choose(0x3f, eighth.val[0], bits_right<1>(eighth.val[1]));
  uint8x16_t pushed = vdupq_n_u8(0);  // each row's top bit pushes those before a bit down
  split_bf16_row<0>(in, bias, last, symbols, pushed, rest);
  split_bf16_row<1>(in, bias, last, symbols, pushed, rest);
  split_bf16_row<2>(in, bias, last, symbols, pushed, rest);
  split_bf16_row<3>(in, bias, last, symbols, pushed, rest);
  split_bf16_row<4>(in, bias, last, symbols, pushed, rest);
  split_bf16_row<5>(in, bias, last, symbols, pushed, rest);
  split_bf16_row<6>(in, bias, last, symbols, pushed, rest);
  vst1q_u8(tops, join<1>(split_symbols<7>(eighth, bias, symbols), pushed));
}

void split_bf16(const uint8_t* in, size_t count, uint8_t bias, uint8_t* symbols, uint8_t* tops,
                uint8_t* rest) {
  const uint8x16_t bias_bytes = vdupq_n_u8(bias);
  const size_t whole = whole_groups(count, kGroup7);
  for (size_t at = 0; at < whole; at += kGroup7)
    for (size_t half = 0; half < kRowBytes; half += 16)
      split_bf16_half(in + 2 * (at + half), bias_bytes, symbols + at + half,
                      tops + packed_bytes(1, at) + half, rest + packed_bytes(7, at) + half);
  scalar_kernels().split_bf16(in + 2 * whole, count - whole, bias, symbols + whole,
                              tops + packed_bytes(1, whole), rest + packed_bytes(7, whole));
}

// `rest` has the sign as bit 6.
template <int K>
CAKE_NEON_INLINE void merge_bf16_row(const uint8_t* symbols, uint8x16_t tops, uint8x16_t rest,
                                     uint8x16_t bias, uint8_t* out) {
  const uint8x16_t symbol = vld1q_u8(symbols + kRowBytes * K);
  const uint8x16_t exponent = vaddq_u8(join<1>(bits_left<7 - K>(tops), symbol), bias);
  const uint8x16_t upper = vsliq_n_u8(bits_left<6>(symbol), exponent, 7);
  const uint8x16x2_t elements = {
      {choose(0x3f, rest, upper), join<1>(bits_left<1>(rest), exponent)}};
  vst2q_u8(out + 2 * kRowBytes * K, elements);
}
// A row of the first seven, whose top bit is one of the eighth row.
template <int K>
CAKE_NEON_INLINE void merge_bf16_row(const uint8_t* symbols, uint8x16_t tops, const uint8_t* rest,
                                     uint8x16_t bias, uint8x16_t& last, uint8_t* out) {
  const uint8x16_t row = vld1q_u8(rest + kRowBytes * K);
  last = join<1>(row, last);
  merge_bf16_row<K>(symbols, tops, row, bias, out);
}

CAKE_NEON_INLINE void merge_bf16_half(const uint8_t* symbols, uint8x16_t tops, const uint8_t* rest,
                                      uint8x16_t bias, uint8_t* out) {
  uint8x16_t last = vdupq_n_u8(0);
  merge_bf16_row<0>(symbols, tops, rest, bias, last, out);
  merge_bf16_row<1>(symbols, tops, rest, bias, last, out);
  merge_bf16_row<2>(symbols, tops, rest, bias, last, out);
  merge_bf16_row<3>(symbols, tops, rest, bias, last, out);
  merge_bf16_row<4>(symbols, tops, rest, bias, last, out);
  merge_bf16_row<5>(symbols, tops, rest, bias, last, out);
  merge_bf16_row<6>(symbols, tops, rest, bias, last, out);
  merge_bf16_row<7>(symbols, tops, bits_right<1>(last), bias, out);
}

void merge_bf16(const uint8_t* symbols, const uint8_t* tops, const uint8_t* rest, size_t count,
                uint8_t bias, uint8_t* out) {
  const uint8x16_t bias_bytes = vdupq_n_u8(bias);
  const size_t whole = whole_groups(count, kGroup7);
  for (size_t at = 0; at < whole; at += kGroup7)
    for (size_t half = 0; half < kRowBytes; half += 16)
      merge_bf16_half(symbols + at + half, vld1q_u8(tops + packed_bytes(1, at) + half),
                      rest + packed_bytes(7, at) + half, bias_bytes, out + 2 * (at + half));
  scalar_kernels().merge_bf16(symbols + whole, tops + packed_bytes(1, whole),
                              rest + packed_bytes(7, whole), count - whole, bias, out + 2 * whole);
}

// --- F16, FP8, int8: a symbol of 6 bits and a pair ---

// The two ways: bits 6 to 1 and the pair outside (F16's upper byte, FP8), or bits 7 to 2 and the
// pair below (int8).  Pairs are at the top of a byte here: rows push those before two bits down.
struct Inner {
  static CAKE_NEON_INLINE uint8x16_t symbol(uint8x16_t bytes) {
    return bits_right<2>(bits_left<1>(bytes));
  }
  static CAKE_NEON_INLINE uint8x16_t pair(uint8x16_t bytes) {
    return join<1>(bytes, bits_left<7>(bytes));
  }
  static CAKE_NEON_INLINE uint8x16_t merged(uint8x16_t symbols, uint8x16_t pairs) {
    return choose(0x80, pairs, join<7>(bits_left<1>(symbols), bits_left<1>(pairs)));
  }
};
struct Upper {
  static CAKE_NEON_INLINE uint8x16_t symbol(uint8x16_t bytes) { return bits_right<2>(bytes); }
  static CAKE_NEON_INLINE uint8x16_t pair(uint8x16_t bytes) { return bits_left<6>(bytes); }
  static CAKE_NEON_INLINE uint8x16_t merged(uint8x16_t symbols, uint8x16_t pairs) {
    return vsliq_n_u8(bits_right<6>(pairs), symbols, 2);
  }
};

template <int K>
CAKE_NEON_INLINE void split_f16_row(const uint8_t* in, uint8_t* symbols, uint8_t* lows,
                                    uint8x16_t& pairs) {
  const uint8x16x2_t elements = vld2q_u8(in + 2 * kRowBytes * K);
  vst1q_u8(lows + kRowBytes * K, elements.val[0]);
  vst1q_u8(symbols + kRowBytes * K, Inner::symbol(elements.val[1]));
  pairs = join<2>(Inner::pair(elements.val[1]), pairs);
}

void split_f16(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs, uint8_t* lows) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t group = 0; group < whole; group += kGroup2)
    for (size_t half = 0; half < kRowBytes; half += 16) {
      const size_t at = group + half;
      uint8x16_t packed = vdupq_n_u8(0);
      split_f16_row<0>(in + 2 * at, symbols + at, lows + at, packed);
      split_f16_row<1>(in + 2 * at, symbols + at, lows + at, packed);
      split_f16_row<2>(in + 2 * at, symbols + at, lows + at, packed);
      split_f16_row<3>(in + 2 * at, symbols + at, lows + at, packed);
      vst1q_u8(pairs + packed_bytes(2, group) + half, packed);
    }
  scalar_kernels().split_f16(in + 2 * whole, count - whole, symbols + whole,
                             pairs + packed_bytes(2, whole), lows + whole);
}

template <int K>
CAKE_NEON_INLINE void merge_f16_row(const uint8_t* symbols, uint8x16_t pairs, const uint8_t* lows,
                                    uint8_t* out) {
  const uint8x16_t symbol = vld1q_u8(symbols + kRowBytes * K);
  const uint8x16x2_t elements = {
      {vld1q_u8(lows + kRowBytes * K), Inner::merged(symbol, bits_left<6 - 2 * K>(pairs))}};
  vst2q_u8(out + 2 * kRowBytes * K, elements);
}

void merge_f16(const uint8_t* symbols, const uint8_t* pairs, const uint8_t* lows, size_t count,
               uint8_t* out) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t group = 0; group < whole; group += kGroup2)
    for (size_t half = 0; half < kRowBytes; half += 16) {
      const size_t at = group + half;
      const uint8x16_t packed = vld1q_u8(pairs + packed_bytes(2, group) + half);
      merge_f16_row<0>(symbols + at, packed, lows + at, out + 2 * at);
      merge_f16_row<1>(symbols + at, packed, lows + at, out + 2 * at);
      merge_f16_row<2>(symbols + at, packed, lows + at, out + 2 * at);
      merge_f16_row<3>(symbols + at, packed, lows + at, out + 2 * at);
    }
  scalar_kernels().merge_f16(symbols + whole, pairs + packed_bytes(2, whole), lows + whole,
                             count - whole, out + 2 * whole);
}

template <typename Bits, int K>
CAKE_NEON_INLINE void split_byte_row(const uint8_t* in, uint8_t* symbols, uint8x16_t& pairs) {
  const uint8x16_t bytes = vld1q_u8(in + kRowBytes * K);
  vst1q_u8(symbols + kRowBytes * K, Bits::symbol(bytes));
  pairs = join<2>(Bits::pair(bytes), pairs);
}
// These two answer how many elements the whole groups hold.
template <typename Bits>
CAKE_NEON_INLINE size_t split_bytes(const uint8_t* in, size_t count, uint8_t* symbols,
                                    uint8_t* pairs) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t group = 0; group < whole; group += kGroup2)
    for (size_t half = 0; half < kRowBytes; half += 16) {
      const size_t at = group + half;
      uint8x16_t packed = vdupq_n_u8(0);
      split_byte_row<Bits, 0>(in + at, symbols + at, packed);
      split_byte_row<Bits, 1>(in + at, symbols + at, packed);
      split_byte_row<Bits, 2>(in + at, symbols + at, packed);
      split_byte_row<Bits, 3>(in + at, symbols + at, packed);
      vst1q_u8(pairs + packed_bytes(2, group) + half, packed);
    }
  return whole;
}
template <typename Bits, int K>
CAKE_NEON_INLINE void merge_byte_row(const uint8_t* symbols, uint8x16_t pairs, uint8_t* out) {
  const uint8x16_t symbol = vld1q_u8(symbols + kRowBytes * K);
  vst1q_u8(out + kRowBytes * K, Bits::merged(symbol, bits_left<6 - 2 * K>(pairs)));
}
template <typename Bits>
CAKE_NEON_INLINE size_t merge_bytes(const uint8_t* symbols, const uint8_t* pairs, size_t count,
                                    uint8_t* out) {
  const size_t whole = whole_groups(count, kGroup2);
  for (size_t group = 0; group < whole; group += kGroup2)
    for (size_t half = 0; half < kRowBytes; half += 16) {
      const size_t at = group + half;
      const uint8x16_t packed = vld1q_u8(pairs + packed_bytes(2, group) + half);
      merge_byte_row<Bits, 0>(symbols + at, packed, out + at);
      merge_byte_row<Bits, 1>(symbols + at, packed, out + at);
      merge_byte_row<Bits, 2>(symbols + at, packed, out + at);
      merge_byte_row<Bits, 3>(symbols + at, packed, out + at);
    }
  return whole;
}

void split_fp8(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
  const size_t done = split_bytes<Inner>(in, count, symbols, pairs);
  scalar_kernels().split_fp8(in + done, count - done, symbols + done,
                             pairs + packed_bytes(2, done));
}
void merge_fp8(const uint8_t* symbols, const uint8_t* pairs, size_t count, uint8_t* out) {
  const size_t done = merge_bytes<Inner>(symbols, pairs, count, out);
  scalar_kernels().merge_fp8(symbols + done, pairs + packed_bytes(2, done), count - done,
                             out + done);
}
void split_int8(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
  const size_t done = split_bytes<Upper>(in, count, symbols, pairs);
  scalar_kernels().split_int8(in + done, count - done, symbols + done,
                              pairs + packed_bytes(2, done));
}
void merge_int8(const uint8_t* symbols, const uint8_t* pairs, size_t count, uint8_t* out) {
  const size_t done = merge_bytes<Upper>(symbols, pairs, count, out);
  scalar_kernels().merge_int8(symbols + done, pairs + packed_bytes(2, done), count - done,
                              out + done);
}

// --- F32 ---

CAKE_NEON_INLINE uint16x8_t load_halves(const uint8_t* from) {
  return vreinterpretq_u16_u8(vld1q_u8(from));
}
CAKE_NEON_INLINE void store_halves(uint8_t* to, uint16x8_t halves) {
  vst1q_u8(to, vreinterpretq_u8_u16(halves));
}

void split_f32(const uint8_t* in, size_t count, uint8_t* upper, uint8_t* mid, uint8_t* low) {
  const size_t whole = whole_groups(count, 16);
  for (size_t at = 0; at < whole; at += 16) {
    const uint16x8_t a = load_halves(in + 4 * at), b = load_halves(in + 4 * at + 16);
    const uint16x8_t c = load_halves(in + 4 * at + 32), d = load_halves(in + 4 * at + 48);
    store_halves(upper + 2 * at, vuzp2q_u16(a, b));
    store_halves(upper + 2 * at + 16, vuzp2q_u16(c, d));
    const uint8x16_t first = vreinterpretq_u8_u16(vuzp1q_u16(a, b));
    const uint8x16_t second = vreinterpretq_u8_u16(vuzp1q_u16(c, d));
    vst1q_u8(low + at, vuzp1q_u8(first, second));
    vst1q_u8(mid + at, vuzp2q_u8(first, second));
  }
  scalar_kernels().split_f32(in + 4 * whole, count - whole, upper + 2 * whole, mid + whole,
                             low + whole);
}

void merge_f32(const uint8_t* upper, const uint8_t* mid, const uint8_t* low, size_t count,
               uint8_t* out) {
  const size_t whole = whole_groups(count, 16);
  for (size_t at = 0; at < whole; at += 16) {
    const uint8x16_t lows = vld1q_u8(low + at), mids = vld1q_u8(mid + at);
    const uint16x8_t first = vreinterpretq_u16_u8(vzip1q_u8(lows, mids));
    const uint16x8_t second = vreinterpretq_u16_u8(vzip2q_u8(lows, mids));
    const uint16x8_t upper_first = load_halves(upper + 2 * at);
    const uint16x8_t upper_second = load_halves(upper + 2 * at + 16);
    store_halves(out + 4 * at, vzip1q_u16(first, upper_first));
    store_halves(out + 4 * at + 16, vzip2q_u16(first, upper_first));
    store_halves(out + 4 * at + 32, vzip1q_u16(second, upper_second));
    store_halves(out + 4 * at + 48, vzip2q_u16(second, upper_second));
  }
  scalar_kernels().merge_f32(upper + 2 * whole, mid + whole, low + whole, count - whole,
                             out + 4 * whole);
}

// 4 elements; `is_same` is -1 for those that come back unchanged.
CAKE_NEON_INLINE float16x4_t narrow_4(const uint8_t* in, uint32x4_t& is_same) {
  const uint32x4_t wide = vreinterpretq_u32_u8(vld1q_u8(in));
  const float16x4_t half = vcvt_f16_f32(vreinterpretq_f32_u32(wide));
  is_same = vceqq_u32(vreinterpretq_u32_f32(vcvt_f32_f16(half)), wide);
  return half;
}

// What is exact is so in every rounding mode, and infinity is refused in every format of F16.
bool narrow_f32(const uint8_t* in, size_t count, uint8_t* out) {
  const size_t whole = whole_groups(count, 8);
  const uint16x8_t infinite = vdupq_n_u16(0x7c00);
  for (size_t at = 0; at < whole; at += 8) {
    uint32x4_t same_first, same_second;
    const uint16x8_t halves =
        vcombine_u16(vreinterpret_u16_f16(narrow_4(in + 4 * at, same_first)),
                     vreinterpret_u16_f16(narrow_4(in + 4 * at + 16, same_second)));
    const uint16x8_t is_infinite = vceqq_u16(vandq_u16(halves, infinite), infinite);
    const uint16x8_t is_same = vcombine_u16(vmovn_u32(same_first), vmovn_u32(same_second));
    if (vminvq_u16(vbicq_u16(is_same, is_infinite)) == 0) return false;
    store_halves(out + 2 * at, halves);
  }
  return scalar_kernels().narrow_f32(in + 4 * whole, count - whole, out + 2 * whole);
}

void widen_f16(const uint8_t* in, size_t count, uint8_t* out) {
  const size_t whole = whole_groups(count, 8);
  for (size_t at = 0; at < whole; at += 8) {
    const float16x8_t halves = vreinterpretq_f16_u8(vld1q_u8(in + 2 * at));
    vst1q_u8(out + 4 * at, vreinterpretq_u8_f32(vcvt_f32_f16(vget_low_f16(halves))));
    vst1q_u8(out + 4 * at + 16, vreinterpretq_u8_f32(vcvt_high_f32_f16(halves)));
  }
  scalar_kernels().widen_f16(in + 2 * whole, count - whole, out + 4 * whole);
}

}  // namespace
}  // namespace neon

const CodecKernels* neon_kernels() {
  static constexpr CodecKernels kKernels = {"neon",
                                            true,
                                            neon::rans_decode,
                                            neon::rans_encode,
                                            neon::map_entries,
                                            neon::split_bf16,
                                            neon::merge_bf16,
                                            neon::split_f16,
                                            neon::merge_f16,
                                            neon::split_fp8,
                                            neon::merge_fp8,
                                            neon::split_int8,
                                            neon::merge_int8,
                                            neon::split_f32,
                                            neon::merge_f32,
                                            neon::narrow_f32,
                                            neon::widen_f16};
  return &kKernels;
}

}  // namespace cake

#else

namespace cake {

const CodecKernels* neon_kernels() {
  return nullptr;
}

}  // namespace cake

#endif
