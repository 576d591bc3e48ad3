// 32 lanes a vector, as a vector of their states' low and one of their high bytes.
#include "store/codec/avx2.h"

#if defined(__x86_64__)

#include <bit>

namespace cake::avx2 {

namespace {

constexpr int kVectors = kRansLanes / 32;

CAKE_AVX2_INLINE __m256i even(__m256i bytes) {
  return _mm256_and_si256(bytes, _mm256_set1_epi16(0xff));
}
CAKE_AVX2_INLINE __m256i odd(__m256i bytes) {
  return _mm256_srli_epi16(bytes, 8);
}
// Low bytes of two vectors of 16-bit numbers, back in the order of lanes; likewise high bytes.
CAKE_AVX2_INLINE __m256i low_bytes(__m256i of_even, __m256i of_odd) {
  return _mm256_or_si256(even(of_even), _mm256_slli_epi16(of_odd, 8));
}
CAKE_AVX2_INLINE __m256i high_bytes(__m256i of_even, __m256i of_odd) {
  return _mm256_or_si256(_mm256_srli_epi16(of_even, 8),
                         _mm256_and_si256(of_odd, _mm256_set1_epi16(static_cast<short>(0xff00))));
}

// The states of 32 lanes.
struct Lanes {
  __m256i low, high;
};
CAKE_AVX2_INLINE void load_lanes(Lanes* lanes, const RansStates& states) {
  for (int v = 0; v < kVectors; v++)
    lanes[v] = {load(&states.low[32 * v]), load(&states.high[32 * v])};
}
CAKE_AVX2_INLINE void store_lanes(const Lanes* lanes, RansStates& states) {
  for (int v = 0; v < kVectors; v++) {
    store(&states.low[32 * v], lanes[v].low);
    store(&states.high[32 * v], lanes[v].high);
  }
}

// --- Decoding ---

template <int Parts>
struct DecodeTables {
  Table<Parts> last, alias, shift, freq, value;
};

// For each lane of `need` (-1, else 0) the next byte of the stream; 0 for others.  Reads up to 32
// bytes from `in`.
CAKE_AVX2_INLINE __m256i next_bytes(__m256i need, const uint8_t*& in) {
  const auto mask = static_cast<uint32_t>(_mm256_movemask_epi8(need));
  // The number of needs up to each lane of a half, negated.
  __m256i sum = _mm256_add_epi8(need, _mm256_slli_si256(need, 1));
  sum = _mm256_add_epi8(sum, _mm256_slli_si256(sum, 2));
  sum = _mm256_add_epi8(sum, _mm256_slli_si256(sum, 4));
  sum = _mm256_add_epi8(sum, _mm256_slli_si256(sum, 8));
  const uint8_t* const second = in + std::popcount(mask & 0xffff);
  const __m256i bytes = _mm256_inserti128_si256(
      _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in))),
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(second)), 1);
  in += std::popcount(mask);
  // ~(-n) is n - 1; a negative index gives 0.
  const __m256i index = _mm256_xor_si256(_mm256_and_si256(sum, need), _mm256_set1_epi8(-1));
  return _mm256_shuffle_epi8(bytes, index);
}

// One symbol of each of 32 lanes; returns their entries.
template <int Parts>
CAKE_AVX2_INLINE __m256i decode_step(Lanes& lanes, const DecodeTables<Parts>& tables,
                                     const uint8_t*& in) {
  constexpr int kBuckets = 16 * Parts;
  constexpr int kWidthBits = Parts == 1 ? 4 : Parts == 2 ? 3 : 2;
  const __m256i bucket = bits_right<kWidthBits>(lanes.low, kBuckets - 1);
  const __m256i position = _mm256_and_si256(lanes.low, _mm256_set1_epi8((1 << kWidthBits) - 1));
  const __m256i is_alias = _mm256_cmpgt_epi8(position, look_up(tables.last, bucket));
  const __m256i entry = _mm256_blendv_epi8(bucket, look_up(tables.alias, bucket), is_alias);
  const __m256i rank =
      _mm256_add_epi8(position, _mm256_and_si256(look_up(tables.shift, bucket), is_alias));
  const __m256i freq = look_up(tables.freq, entry);

  const __m256i state_even =
      _mm256_add_epi16(_mm256_mullo_epi16(even(freq), even(lanes.high)), even(rank));
  const __m256i state_odd =
      _mm256_add_epi16(_mm256_mullo_epi16(odd(freq), odd(lanes.high)), odd(rank));
  const __m256i new_low = low_bytes(state_even, state_odd);
  const __m256i new_high = high_bytes(state_even, state_odd);
  const __m256i need = _mm256_cmpeq_epi8(new_high, _mm256_setzero_si256());
  lanes.low = _mm256_blendv_epi8(new_low, next_bytes(need, in), need);
  lanes.high = _mm256_or_si256(new_high, _mm256_and_si256(new_low, need));
  return entry;
}

template <int Parts>
CAKE_AVX2_INLINE void decode_32(Lanes& lanes, const DecodeTables<Parts>& tables, __m256i escape,
                                const uint8_t*& in, uint8_t* out, uint32_t* escapes) {
  const __m256i entry = decode_step(lanes, tables, in);
  store(out, look_up(tables.value, entry));
  *escapes = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(entry, escape)));
}

template <int Parts>
CAKE_AVX2 const uint8_t* decode(RansStates& states, const RansTable& table, const uint8_t* in,
                                const uint8_t* end, uint8_t* out, size_t count, uint32_t* escapes) {
  DecodeTables<Parts> tables;
  load_table(tables.last, reinterpret_cast<const uint8_t*>(table.last.data()));
  load_table(tables.alias, table.alias.data());
  load_table(tables.shift, table.shift.data());
  load_table(tables.freq, table.freq.data());
  load_table(tables.value, table.value.data());
  const __m256i escape = _mm256_set1_epi8(static_cast<char>(table.escape));
  Lanes lanes[kVectors];
  load_lanes(lanes, states);
  size_t done = 0;
  // A step takes at most 128 bytes; its last load reads 16 from where that may end.
  for (; count - done >= kRansLanes && end - in >= static_cast<ptrdiff_t>(kRansLanes + 16);
       done += kRansLanes) {
    decode_32(lanes[0], tables, escape, in, out + done, escapes + done / 32);
    decode_32(lanes[1], tables, escape, in, out + done + 32, escapes + done / 32 + 1);
    decode_32(lanes[2], tables, escape, in, out + done + 64, escapes + done / 32 + 2);
    decode_32(lanes[3], tables, escape, in, out + done + 96, escapes + done / 32 + 3);
  }
  store_lanes(lanes, states);
  if (done == count) return in;
  return scalar_kernels().rans_decode(states, table, in, end, out + done, count - done,
                                      escapes + done / 32);
}

// --- Encoding ---

// For a mask of 8 lanes, the lanes in it, ascending, at the end of 8 bytes.
struct Compactions {
  uint8_t lanes[256][8];
};
constexpr Compactions make_compactions(int first_lane) {
  Compactions made{};
  for (int mask = 0; mask < 256; mask++) {
    int at = 8;
    for (int lane = 7; lane >= 0; lane--)
      if (mask >> lane & 1) made.lanes[mask][--at] = static_cast<uint8_t>(first_lane + lane);
    while (at > 0) made.lanes[mask][--at] = 0;
  }
  return made;
}
constexpr Compactions kLowLanes = make_compactions(0);
constexpr Compactions kHighLanes = make_compactions(8);

// Puts those of 16 bytes that are in the mask below `out`, where 8 bytes more may change.
CAKE_AVX2_INLINE void put_bytes(__m128i bytes, uint32_t mask, uint8_t*& out) {
  const uint32_t low = mask & 0xff, high = mask >> 8 & 0xff;
  const __m128i lanes =
      _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kLowLanes.lanes[low])),
                         _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kHighLanes.lanes[high])));
  const __m128i packed = _mm_shuffle_epi8(bytes, lanes);
  store_high_half(out - 8, packed);
  out -= std::popcount(high);
  store_low_half(out - 8, packed);
  out -= std::popcount(low);
}

template <int Parts>
struct EncodeTables {
  Table<Parts> freq, start, reciprocal_low, reciprocal_high;
};

// Quotient and remainder of states by frequencies, 16 bits each.
CAKE_AVX2_INLINE void divide(__m256i state, __m256i freq, __m256i reciprocal, __m256i& quotient,
                             __m256i& remainder) {
  const __m256i guess = _mm256_mulhi_epu16(state, reciprocal);
  const __m256i left = _mm256_sub_epi16(state, _mm256_mullo_epi16(guess, freq));
  const __m256i is_right = _mm256_cmpgt_epi16(freq, left);
  quotient = _mm256_add_epi16(_mm256_add_epi16(guess, _mm256_set1_epi16(1)), is_right);
  remainder = _mm256_sub_epi16(left, _mm256_andnot_si256(is_right, freq));
}

template <int Parts>
CAKE_AVX2_INLINE void encode_step(Lanes& lanes, __m256i entry, const EncodeTables<Parts>& tables,
                                  const uint8_t* slots, uint8_t*& out) {
  const __m256i freq = look_up(tables.freq, entry);
  const __m256i is_full = _mm256_cmpeq_epi8(_mm256_max_epu8(lanes.high, freq), lanes.high);
  const auto mask = static_cast<uint32_t>(_mm256_movemask_epi8(is_full));
  put_bytes(_mm256_extracti128_si256(lanes.low, 1), mask >> 16, out);
  put_bytes(_mm256_castsi256_si128(lanes.low), mask, out);
  const __m256i low = _mm256_blendv_epi8(lanes.low, lanes.high, is_full);
  const __m256i high = _mm256_andnot_si256(is_full, lanes.high);

  const __m256i upper = _mm256_set1_epi16(static_cast<short>(0xff00));
  const __m256i reciprocal_low = look_up(tables.reciprocal_low, entry);
  const __m256i reciprocal_high = look_up(tables.reciprocal_high, entry);
  __m256i quotient_even, remainder_even, quotient_odd, remainder_odd;
  divide(_mm256_or_si256(even(low), _mm256_slli_epi16(high, 8)), even(freq),
         _mm256_or_si256(even(reciprocal_low), _mm256_slli_epi16(reciprocal_high, 8)),
         quotient_even, remainder_even);
  divide(_mm256_or_si256(odd(low), _mm256_and_si256(high, upper)), odd(freq),
         _mm256_or_si256(odd(reciprocal_low), _mm256_and_si256(reciprocal_high, upper)),
         quotient_odd, remainder_odd);
  const __m256i rank = _mm256_or_si256(remainder_even, _mm256_slli_epi16(remainder_odd, 8));
  lanes.high = _mm256_or_si256(quotient_even, _mm256_slli_epi16(quotient_odd, 8));
  lanes.low = look_up_256(slots, _mm256_add_epi8(rank, look_up(tables.start, entry)));
}

template <int Parts>
CAKE_AVX2 uint8_t* encode(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                          size_t count, uint8_t* out) {
  const size_t whole = count / kRansLanes * kRansLanes;
  out = scalar_kernels().rans_encode(states, table, entries + whole, count - whole, out);
  EncodeTables<Parts> tables;
  load_table(tables.freq, table.freq.data());
  load_table(tables.start, table.start.data());
  load_table(tables.reciprocal_low, table.reciprocal_low.data());
  load_table(tables.reciprocal_high, table.reciprocal_high.data());
  Lanes lanes[kVectors];
  load_lanes(lanes, states);
  for (size_t at = whole; at > 0; at -= kRansLanes) {
    const uint8_t* const from = entries + at - kRansLanes;
    encode_step(lanes[3], load(from + 96), tables, table.slots.data(), out);
    encode_step(lanes[2], load(from + 64), tables, table.slots.data(), out);
    encode_step(lanes[1], load(from + 32), tables, table.slots.data(), out);
    encode_step(lanes[0], load(from), tables, table.slots.data(), out);
  }
  store_lanes(lanes, states);
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

namespace {

CAKE_AVX2_INLINE size_t put_entries(const uint8_t* in, __m256i entry, __m256i escape,
                                    uint8_t* entries, uint8_t* escaped) {
  store(entries, entry);
  size_t count = 0;
  auto mask = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(entry, escape)));
  for (; mask != 0; mask &= mask - 1)
    escaped[count++] = in[static_cast<unsigned>(std::countr_zero(mask))];
  return count;
}

}  // namespace

CAKE_AVX2 size_t map_entries(const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                             uint8_t* entries, uint8_t* escaped) {
  const size_t whole = count & ~size_t{31};
  const __m256i escape_entry = _mm256_set1_epi8(static_cast<char>(escape));
  size_t escapes = 0;
  if (const EntryWindow window(map, escape); window.fits) {
    Table<4> table;
    load_table(table, window.entries.data());
    const __m256i first = _mm256_set1_epi8(static_cast<char>(window.first));
    for (size_t at = 0; at < whole; at += 32) {
      // Values on either side are 63 or more, modulo 256.
      const __m256i index =
          _mm256_min_epu8(_mm256_sub_epi8(load(in + at), first), _mm256_set1_epi8(63));
      escapes += put_entries(in + at, look_up(table, index), escape_entry, entries + at,
                             escaped + escapes);
    }
  } else {
    for (size_t at = 0; at < whole; at += 32)
      escapes += put_entries(in + at, look_up_256(map, load(in + at)), escape_entry, entries + at,
                             escaped + escapes);
  }
  return escapes + scalar_kernels().map_entries(in + whole, count - whole, map, escape,
                                                entries + whole, escaped + escapes);
}

}  // namespace cake::avx2

#endif
