// Shared by the NEON kernels.  These use what every AArch64 processor has (ASIMD), so nothing is
// detected at run time.  A big-endian one has other orders of lanes in memory: scalar code there.
#pragma once

#if defined(__AARCH64EL__)

#include <arm_neon.h>

#include "store/codec/kernels.h"

#define CAKE_NEON_INLINE __attribute__((always_inline)) inline

namespace cake::neon {

// A table of 16 * Parts bytes in registers.  Indices beyond it give 0.
template <int Parts>
struct Table;
template <>
struct Table<1> {
  uint8x16_t parts;
  explicit CAKE_NEON_INLINE Table(const uint8_t* from) : parts(vld1q_u8(from)) {}
};
template <>
struct Table<2> {
  uint8x16x2_t parts;
  explicit CAKE_NEON_INLINE Table(const uint8_t* from) : parts(vld1q_u8_x2(from)) {}
};
template <>
struct Table<4> {
  uint8x16x4_t parts;
  explicit CAKE_NEON_INLINE Table(const uint8_t* from) : parts(vld1q_u8_x4(from)) {}
};
CAKE_NEON_INLINE uint8x16_t look_up(const Table<1>& table, uint8x16_t index) {
  return vqtbl1q_u8(table.parts, index);
}
CAKE_NEON_INLINE uint8x16_t look_up(const Table<2>& table, uint8x16_t index) {
  return vqtbl2q_u8(table.parts, index);
}
CAKE_NEON_INLINE uint8x16_t look_up(const Table<4>& table, uint8x16_t index) {
  return vqtbl4q_u8(table.parts, index);
}

// A table of 256 bytes.
struct Table256 {
  Table<4> a, b, c, d;
  explicit CAKE_NEON_INLINE Table256(const uint8_t* from)
      : a(from), b(from + 64), c(from + 128), d(from + 192) {}
};
CAKE_NEON_INLINE uint8x16_t look_up(const Table256& table, uint8x16_t index) {
  // The three that do not have an index give 0.  TBX, which would leave what was found, costs more.
  const uint8x16_t quarter = vdupq_n_u8(64), half = vdupq_n_u8(128);
  const uint8x16_t far = veorq_u8(index, half);
  const uint8x16_t low =
      vorrq_u8(look_up(table.a, index), look_up(table.b, veorq_u8(index, quarter)));
  const uint8x16_t high = vorrq_u8(look_up(table.c, far), look_up(table.d, veorq_u8(far, quarter)));
  return vorrq_u8(low, high);
}

// One bit a lane of 64: bit i % 8 of byte i / 8.  Lanes are 0 or -1 and come 32 at a time, so that
// no more than that are held.
CAKE_NEON_INLINE uint8x16_t half_mask(uint8x16_t first, uint8x16_t second) {
  const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  return vpaddq_u8(vandq_u8(first, bit), vandq_u8(second, bit));
}
CAKE_NEON_INLINE uint8x8_t whole_mask(uint8x16_t first_half, uint8x16_t second_half) {
  const uint8x16_t fours = vpaddq_u8(first_half, second_half);
  return vget_low_u8(vpaddq_u8(fours, fours));
}
CAKE_NEON_INLINE uint64_t to_integer(uint8x8_t bytes) {
  return vget_lane_u64(vreinterpret_u64_u8(bytes), 0);
}

const uint8_t* rans_decode(RansStates& states, const RansTable& table, const uint8_t* in,
                           const uint8_t* end, uint8_t* out, size_t count, uint32_t* escapes);
uint8_t* rans_encode(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                     size_t count, uint8_t* out);
size_t map_entries(const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                   uint8_t* entries, uint8_t* escaped);

}  // namespace cake::neon

#endif
