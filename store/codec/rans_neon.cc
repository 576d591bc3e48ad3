// 64 lanes at a time, 16 in a vector: their states' low bytes in one, the high bytes in another.
// States stay in memory between steps: a loop over all 128 lanes, which a compiler keeps in
// registers, needs a quarter more instructions to encode (g++ 12): tables do not fit beside them.
#include "store/codec/neon.h"

#if defined(__AARCH64EL__)

#include <bit>

namespace cake::neon {

namespace {

// For each mask of 8 lanes, 8 indices of bytes; a set for each half of a vector.
struct Indices {
  uint8_t half[2][256][8];
};
// Where a lane of the mask finds its byte among those of the half's lanes in the mask, which are 8
// at most and lie at 0 or 8 of a vector.  255: not in the mask.
constexpr Indices make_expansions() {
  Indices made{};
  for (uint8_t half = 0; half < 2; half++)
    for (unsigned mask = 0; mask < 256; mask++) {
      uint8_t next = 8 * half;
      for (unsigned lane = 0; lane < 8; lane++)
        made.half[half][mask][lane] = mask >> lane & 1 ? next++ : 255;
    }
  return made;
}
// The lanes of the mask, ascending, at the end of the 8.
constexpr Indices make_compactions() {
  Indices made{};
  for (uint8_t half = 0; half < 2; half++)
    for (unsigned mask = 0; mask < 256; mask++) {
      unsigned at = 8;
      for (unsigned lane = 8; lane-- > 0;)
        if (mask >> lane & 1) made.half[half][mask][--at] = static_cast<uint8_t>(8 * half + lane);
    }
  return made;
}
constexpr Indices kExpansions = make_expansions();
constexpr Indices kCompactions = make_compactions();

// How many of 64 lanes are in a mask, up to the end of each 8.
CAKE_NEON_INLINE uint64_t running_counts(uint8x8_t mask) {
  return to_integer(vcnt_u8(mask)) * 0x0101010101010101;
}
CAKE_NEON_INLINE uint8_t byte_of(uint64_t bytes, int i) {
  return static_cast<uint8_t>(bytes >> 8 * i);
}

// --- Decoding ---

template <int Parts>
struct DecodeTables {
  Table<Parts> last, alias, shift, freq, value;
  explicit CAKE_NEON_INLINE DecodeTables(const RansTable& table)
      : last(reinterpret_cast<const uint8_t*>(table.last.data())),
        alias(table.alias.data()),
        shift(table.shift.data()),
        freq(table.freq.data()),
        value(table.value.data()) {}
};

// 16 lanes after a step, before the next bytes are in.
struct Decoded {
  uint8x16_t low, high, entry;
};

template <int Parts>
CAKE_NEON_INLINE Decoded decode_16(const uint8_t* lows, const uint8_t* highs,
                                   const DecodeTables<Parts>& tables) {
  constexpr int kWidthBits = Parts == 1 ? 4 : Parts == 2 ? 3 : 2;
  const uint8x16_t low = vld1q_u8(lows);
  const uint8x16_t high = vld1q_u8(highs);
  const uint8x16_t bucket = vshrq_n_u8(low, kWidthBits);
  const uint8x16_t position = vandq_u8(low, vdupq_n_u8((1 << kWidthBits) - 1));
  const uint8x16_t is_alias =
      vcgtq_s8(vreinterpretq_s8_u8(position), vreinterpretq_s8_u8(look_up(tables.last, bucket)));
  const uint8x16_t entry = vbslq_u8(is_alias, look_up(tables.alias, bucket), bucket);
  const uint8x16_t rank = vaddq_u8(position, vandq_u8(look_up(tables.shift, bucket), is_alias));
  const uint8x16_t freq = look_up(tables.freq, entry);
  const uint8x16_t first = vreinterpretq_u8_u16(
      vaddw_u8(vmull_u8(vget_low_u8(freq), vget_low_u8(high)), vget_low_u8(rank)));
  const uint8x16_t second = vreinterpretq_u8_u16(vaddw_high_u8(vmull_high_u8(freq, high), rank));
  return {vuzp1q_u8(first, second), vuzp2q_u8(first, second), entry};
}

// Stores the I-th 16 lanes of 64, those in `mask` with a byte each from `in`; `ends` are the
// running counts of `mask`.
template <int I>
CAKE_NEON_INLINE void refill_16(const Decoded& decoded, uint64_t mask, uint64_t ends,
                                const uint8_t* in, uint8_t* lows, uint8_t* highs) {
  const uint8_t* const first = I == 0 ? in : in + byte_of(ends, 2 * I - 1);
  const uint8_t* const second = in + byte_of(ends, 2 * I);
  const uint8x16_t bytes = vcombine_u8(vld1_u8(first), vld1_u8(second));
  const uint8x16_t index = vcombine_u8(vld1_u8(kExpansions.half[0][byte_of(mask, 2 * I)]),
                                       vld1_u8(kExpansions.half[1][byte_of(mask, 2 * I + 1)]));
  vst1q_u8(lows + 16 * I, vqtbx1q_u8(decoded.low, bytes, index));
  vst1q_u8(highs + 16 * I, vbslq_u8(vceqzq_u8(decoded.high), decoded.low, decoded.high));
}

// One symbol of each of 64 lanes.  Reads up to 64 bytes from `in`.
template <int Parts>
CAKE_NEON_INLINE const uint8_t* decode_64(uint8_t* lows, uint8_t* highs,
                                          const DecodeTables<Parts>& tables, uint8x16_t escape,
                                          const uint8_t* in, uint8_t* out, uint32_t* escapes) {
  const Decoded a = decode_16(lows, highs, tables);
  const Decoded b = decode_16(lows + 16, highs + 16, tables);
  const uint8x16_t need_ab = half_mask(vceqzq_u8(a.high), vceqzq_u8(b.high));
  const uint8x16_t escape_ab = half_mask(vceqq_u8(a.entry, escape), vceqq_u8(b.entry, escape));
  vst1q_u8(out, look_up(tables.value, a.entry));
  vst1q_u8(out + 16, look_up(tables.value, b.entry));
  const Decoded c = decode_16(lows + 32, highs + 32, tables);
  const Decoded d = decode_16(lows + 48, highs + 48, tables);
  const uint8x8_t needs = whole_mask(need_ab, half_mask(vceqzq_u8(c.high), vceqzq_u8(d.high)));
  const uint8x8_t escaped =
      whole_mask(escape_ab, half_mask(vceqq_u8(c.entry, escape), vceqq_u8(d.entry, escape)));
  vst1q_u8(out + 32, look_up(tables.value, c.entry));
  vst1q_u8(out + 48, look_up(tables.value, d.entry));
  vst1_u8(reinterpret_cast<uint8_t*>(escapes), escaped);

  const uint64_t mask = to_integer(needs);
  const uint64_t ends = running_counts(needs);
  refill_16<0>(a, mask, ends, in, lows, highs);
  refill_16<1>(b, mask, ends, in, lows, highs);
  refill_16<2>(c, mask, ends, in, lows, highs);
  refill_16<3>(d, mask, ends, in, lows, highs);
  return in + byte_of(ends, 7);
}

template <int Parts>
const uint8_t* decode(RansStates& states, const RansTable& table, const uint8_t* in,
                      const uint8_t* end, uint8_t* out, size_t count, uint32_t* escapes) {
  const DecodeTables<Parts> tables(table);
  const uint8x16_t escape = vdupq_n_u8(static_cast<uint8_t>(table.escape));
  // A copy that no pointer of the caller points to.
  RansStates own = states;
  const size_t whole = count / kRansLanes * kRansLanes;
  size_t done = 0;
  for (; done < whole; done += 64) {
    const size_t lane = done % kRansLanes;
    // Lane 64 always has its 64 bytes.
    if (end - in < static_cast<ptrdiff_t>(kRansLanes - lane)) break;
    in = decode_64(&own.low[lane], &own.high[lane], tables, escape, in, out + done,
                   escapes + done / 32);
  }
  states = own;
  if (done == count) return in;
  return scalar_kernels().rans_decode(states, table, in, end, out + done, count - done,
                                      escapes + done / 32);
}

// --- Encoding ---

template <int Parts>
struct EncodeTables {
  Table<Parts> freq, start, reciprocal_low, reciprocal_high;
  explicit CAKE_NEON_INLINE EncodeTables(const RansEncodeTable& table)
      : freq(table.freq.data()),
        start(table.start.data()),
        reciprocal_low(table.reciprocal_low.data()),
        reciprocal_high(table.reciprocal_high.data()) {}
};

// states / freq of 8 lanes as the upper halves of 32 bits, or one less.
CAKE_NEON_INLINE uint16x8_t guess_quotient(uint16x8_t state, uint16x8_t reciprocal) {
  const uint32x4_t first = vmull_u16(vget_low_u16(state), vget_low_u16(reciprocal));
  const uint32x4_t second = vmull_high_u16(state, reciprocal);
  return vuzp2q_u16(vreinterpretq_u16_u32(first), vreinterpretq_u16_u32(second));
}

// What a step makes of 16 lanes: the states' new high bytes, and where in `slots` the low ones are.
struct Encoded {
  uint8x16_t is_full;  // -1 where the low byte goes out
  uint8x16_t high, index;
};

template <int Parts>
CAKE_NEON_INLINE Encoded encode_16(const uint8_t* lows, const uint8_t* highs,
                                   const uint8_t* entries, const EncodeTables<Parts>& tables) {
  const uint8x16_t old_low = vld1q_u8(lows);
  const uint8x16_t old_high = vld1q_u8(highs);
  const uint8x16_t entry = vld1q_u8(entries);
  const uint8x16_t freq = look_up(tables.freq, entry);
  const uint8x16_t is_full = vcgeq_u8(old_high, freq);
  const uint8x16_t low = vbslq_u8(is_full, old_high, old_low);
  const uint8x16_t high = vbicq_u8(old_high, is_full);

  const uint8x16_t reciprocal_low = look_up(tables.reciprocal_low, entry);
  const uint8x16_t reciprocal_high = look_up(tables.reciprocal_high, entry);
  const uint16x8_t first = vreinterpretq_u16_u8(vzip1q_u8(low, high));
  const uint16x8_t second = vreinterpretq_u16_u8(vzip2q_u8(low, high));
  const uint16x8_t guess_first =
      guess_quotient(first, vreinterpretq_u16_u8(vzip1q_u8(reciprocal_low, reciprocal_high)));
  const uint16x8_t guess_second =
      guess_quotient(second, vreinterpretq_u16_u8(vzip2q_u8(reciprocal_low, reciprocal_high)));
  // A state is below 256 times its frequency now, so quotients are bytes.
  const uint8x16_t guess =
      vuzp1q_u8(vreinterpretq_u8_u16(guess_first), vreinterpretq_u8_u16(guess_second));
  const uint16x8_t left_first = vmlsl_u8(first, vget_low_u8(guess), vget_low_u8(freq));
  const uint16x8_t left_second = vmlsl_high_u8(second, guess, freq);
  // What is left may be as much as 9 bits; as 255 it still is no less than any frequency.
  const uint8x16_t capped = vqmovn_high_u16(vqmovn_u16(left_first), left_second);
  const uint8x16_t is_low = vcgeq_u8(capped, freq);
  const uint8x16_t left =
      vuzp1q_u8(vreinterpretq_u8_u16(left_first), vreinterpretq_u8_u16(left_second));
  const uint8x16_t rank = vsubq_u8(left, vandq_u8(is_low, freq));
  return {is_full, vsubq_u8(guess, is_low), vaddq_u8(rank, look_up(tables.start, entry))};
}

// Puts those low bytes of the I-th 16 lanes of 64 that are in `mask` where they end at `out` plus
// their running counts.  8 bytes below them may change: the caller goes downwards.
template <int I>
CAKE_NEON_INLINE void emit_16(const uint8_t* lows, uint64_t mask, uint64_t ends, uint8_t* out) {
  const uint8x16_t low = vld1q_u8(lows + 16 * I);
  const uint8x8_t first = vld1_u8(kCompactions.half[0][byte_of(mask, 2 * I)]);
  const uint8x8_t second = vld1_u8(kCompactions.half[1][byte_of(mask, 2 * I + 1)]);
  vst1_u8(out + byte_of(ends, 2 * I + 1) - 8, vqtbl1_u8(low, second));
  vst1_u8(out + byte_of(ends, 2 * I) - 8, vqtbl1_u8(low, first));
}

template <int Parts>
CAKE_NEON_INLINE uint8_t* encode_64(uint8_t* lows, uint8_t* highs, const uint8_t* entries,
                                    const EncodeTables<Parts>& tables, const uint8_t* slots,
                                    uint8_t* out) {
  const Encoded a = encode_16(lows, highs, entries, tables);
  vst1q_u8(highs, a.high);
  const Encoded b = encode_16(lows + 16, highs + 16, entries + 16, tables);
  vst1q_u8(highs + 16, b.high);
  const uint8x16_t full_ab = half_mask(a.is_full, b.is_full);
  const Encoded c = encode_16(lows + 32, highs + 32, entries + 32, tables);
  vst1q_u8(highs + 32, c.high);
  const Encoded d = encode_16(lows + 48, highs + 48, entries + 48, tables);
  vst1q_u8(highs + 48, d.high);
  const uint8x8_t full = whole_mask(full_ab, half_mask(c.is_full, d.is_full));

  const uint64_t mask = to_integer(full);
  const uint64_t ends = running_counts(full);
  out -= byte_of(ends, 7);
  emit_16<3>(lows, mask, ends, out);
  emit_16<2>(lows, mask, ends, out);
  emit_16<1>(lows, mask, ends, out);
  emit_16<0>(lows, mask, ends, out);

  const Table256 slot_table(slots);
  vst1q_u8(lows, look_up(slot_table, a.index));
  vst1q_u8(lows + 16, look_up(slot_table, b.index));
  vst1q_u8(lows + 32, look_up(slot_table, c.index));
  vst1q_u8(lows + 48, look_up(slot_table, d.index));
  return out;
}

template <int Parts>
uint8_t* encode(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                size_t count, uint8_t* out) {
  const size_t whole = count / kRansLanes * kRansLanes;
  out = scalar_kernels().rans_encode(states, table, entries + whole, count - whole, out);
  const EncodeTables<Parts> tables(table);
  const uint8_t* const slots = table.slots.data();
  RansStates own = states;
  for (size_t at = whole; at > 0;) {
    at -= 64;
    const size_t lane = at % kRansLanes;
    out = encode_64(&own.low[lane], &own.high[lane], entries + at, tables, slots, out);
  }
  states = own;
  return out;
}

}  // namespace

const uint8_t* rans_decode(RansStates& states, const RansTable& table, const uint8_t* in,
                           const uint8_t* end, uint8_t* out, size_t count, uint32_t* escapes) {
  if (table.bucket_bits == 4) return decode<1>(states, table, in, end, out, count, escapes);
  if (table.bucket_bits == 5) return decode<2>(states, table, in, end, out, count, escapes);
  return decode<4>(states, table, in, end, out, count, escapes);
}

uint8_t* rans_encode(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                     size_t count, uint8_t* out) {
  if (table.entries <= 16) return encode<1>(states, table, entries, count, out);
  if (table.entries <= 32) return encode<2>(states, table, entries, count, out);
  return encode<4>(states, table, entries, count, out);
}

// --- Entries of values ---

namespace {

// An EntryWindow in registers.
struct Window {
  uint8x16_t first;
  Table<4> table;
};
CAKE_NEON_INLINE uint8x16_t look_up(const Window& window, uint8x16_t value) {
  // Values on either side are 63 or more, modulo 256.
  return look_up(window.table, vminq_u8(vsubq_u8(value, window.first), vdupq_n_u8(63)));
}
// `count` is a multiple of 64.
template <typename Map>
CAKE_NEON_INLINE size_t map_whole(const uint8_t* in, size_t count, const Map& map,
                                  uint8x16_t escape, uint8_t* entries, uint8_t* escaped) {
  size_t escapes = 0;
  for (size_t at = 0; at < count; at += 64) {
    const uint8x16_t a = look_up(map, vld1q_u8(in + at));
    const uint8x16_t b = look_up(map, vld1q_u8(in + at + 16));
    const uint8x16_t c = look_up(map, vld1q_u8(in + at + 32));
    const uint8x16_t d = look_up(map, vld1q_u8(in + at + 48));
    vst1q_u8(entries + at, a);
    vst1q_u8(entries + at + 16, b);
    vst1q_u8(entries + at + 32, c);
    vst1q_u8(entries + at + 48, d);
    uint64_t mask = to_integer(whole_mask(half_mask(vceqq_u8(a, escape), vceqq_u8(b, escape)),
                                          half_mask(vceqq_u8(c, escape), vceqq_u8(d, escape))));
    for (; mask != 0; mask &= mask - 1)
      escaped[escapes++] = in[at + static_cast<unsigned>(std::countr_zero(mask))];
  }
  return escapes;
}

}  // namespace

size_t map_entries(const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                   uint8_t* entries, uint8_t* escaped) {
  const size_t whole = count & ~size_t{63};
  const uint8x16_t escape_entry = vdupq_n_u8(static_cast<uint8_t>(escape));
  size_t escapes = 0;
  if (const EntryWindow found(map, escape); found.fits) {
    const Window window{vdupq_n_u8(found.first), Table<4>(found.entries.data())};
    escapes = map_whole(in, whole, window, escape_entry, entries, escaped);
  } else {
    escapes = map_whole(in, whole, Table256(map), escape_entry, entries, escaped);
  }
  return escapes + scalar_kernels().map_entries(in + whole, count - whole, map, escape,
                                                entries + whole, escaped + escapes);
}

}  // namespace cake::neon

#endif
