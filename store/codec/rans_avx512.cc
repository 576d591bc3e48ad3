// 64 lanes a vector, as a vector of their states' low and one of their high bytes.
#include "store/codec/avx512.h"

#if defined(__x86_64__) || defined(CAKE_AVX512_EMULATED)

#include <bit>
#include <cstring>

namespace cake::CAKE_AVX512_NAMESPACE {

namespace {

constexpr size_t kVectorLanes = 64;
static_assert(kRansLanes == 2 * kVectorLanes && kRansEntries == kVectorLanes);

template <size_t Size>
constexpr std::array<uint8_t, Size> multiples_of(unsigned step) {
  std::array<uint8_t, Size> bytes{};
  for (unsigned i = 0; i < Size; i++) bytes[i] = static_cast<uint8_t>(step * i);
  return bytes;
}
constexpr auto kFourTimes = multiples_of<64>(4);
// From n on, what moves bytes up by 64 - n, the upper ones to the front.
constexpr auto kRotations = multiples_of<128>(1);

// In 16-bit numbers: the lower byte; the upper byte is in place or moved down.
CAKE_AVX512_INLINE __m512i even(__m512i bytes) {
  return _mm512_and_si512(bytes, _mm512_set1_epi16(0xff));
}
CAKE_AVX512_INLINE __m512i odd(__m512i bytes) {
  return _mm512_srli_epi16(bytes, 8);
}
CAKE_AVX512_INLINE __m512i odd_in_place(__m512i bytes) {
  return _mm512_andnot_si512(_mm512_set1_epi16(0xff), bytes);
}
// Low bytes of two vectors of 16-bit numbers, back in the order of lanes; likewise high bytes.
CAKE_AVX512_INLINE __m512i low_bytes(__m512i of_even, __m512i of_odd) {
  return select(_mm512_set1_epi16(0xff), of_even, _mm512_slli_epi16(of_odd, 8));
}
CAKE_AVX512_INLINE __m512i high_bytes(__m512i of_even, __m512i of_odd) {
  return select(_mm512_set1_epi16(0xff), _mm512_srli_epi16(of_even, 8), of_odd);
}

// The states of 64 lanes.
struct Lanes {
  __m512i low, high;
};
CAKE_AVX512_INLINE void load_lanes(Lanes* lanes, const RansStates& states) {
  lanes[0] = {load(&states.low[0]), load(&states.high[0])};
  lanes[1] = {load(&states.low[kVectorLanes]), load(&states.high[kVectorLanes])};
}
CAKE_AVX512_INLINE void store_lanes(const Lanes* lanes, RansStates& states) {
  store(&states.low[0], lanes[0].low);
  store(&states.high[0], lanes[0].high);
  store(&states.low[kVectorLanes], lanes[1].low);
  store(&states.high[kVectorLanes], lanes[1].high);
}

// --- Decoding ---

// The first five are by slot / 4, which serves buckets of 4, 8 and 16 slots alike: where the alias
// begins, then entry, and rank less slot, of the bucket's own entry and of its alias.
struct DecodeTables {
  __m512i first_alias, own, own_offset, alias, alias_offset;
  __m512i freq, value, escape;
};
CAKE_AVX512_INLINE DecodeTables load_decode_tables(const RansTable& table) {
  const unsigned width_bits = 8 - table.bucket_bits;
  const __m512i begin =
      _mm512_and_si512(load(kFourTimes.data()), all_bytes(static_cast<int>(~0U << width_bits)));
  const __m512i bucket =
      _mm512_srlv_epi16(begin, _mm512_set1_epi16(static_cast<short>(width_bits)));
  const __m512i last = look_up(load(table.last.data()), bucket);
  DecodeTables tables;
  // 256 as 0 does no harm: a bucket that is full names itself as its alias.
  tables.first_alias = _mm512_add_epi8(_mm512_add_epi8(begin, last), all_bytes(1));
  tables.own = bucket;
  tables.own_offset = _mm512_sub_epi8(_mm512_setzero_si512(), begin);
  tables.alias = look_up(load(table.alias.data()), bucket);
  tables.alias_offset = _mm512_sub_epi8(look_up(load(table.shift.data()), bucket), begin);
  tables.freq = load(table.freq.data());
  tables.value = load(table.value.data());
  tables.escape = all_bytes(static_cast<int>(table.escape));
  return tables;
}

// The stream as far as it goes, at most 64 bytes of it; zeros behind.
CAKE_AVX512_INLINE __m512i load_up_to(const uint8_t* in, const uint8_t* end) {
  const auto left = static_cast<size_t>(end - in);
  return left >= kVectorLanes ? load(in) : _mm512_maskz_loadu_epi8((uint64_t{1} << left) - 1, in);
}

// One symbol of each of 64 lanes.  Reads up to 64 bytes from `in`; when IsBounded not beyond
// `end`, and is false when that is too soon.
template <bool IsBounded>
CAKE_AVX512_INLINE bool decode_64(Lanes& lanes, const DecodeTables& tables, const uint8_t*& in,
                                  [[maybe_unused]] const uint8_t* end, uint8_t* out,
                                  uint32_t* escapes) {
  // Bits from the neighbouring byte are above the 6 that count.
  const __m512i bucket = _mm512_srli_epi16(lanes.low, 2);
  const __mmask64 is_alias = _mm512_cmpge_epu8_mask(lanes.low, look_up(tables.first_alias, bucket));
  const __m512i entry =
      _mm512_mask_permutexvar_epi8(look_up(tables.own, bucket), is_alias, bucket, tables.alias);
  const __m512i offset = _mm512_mask_permutexvar_epi8(look_up(tables.own_offset, bucket), is_alias,
                                                      bucket, tables.alias_offset);
  const __m512i rank = _mm512_add_epi8(lanes.low, offset);
  store(out, look_up(tables.value, entry));
  const uint64_t is_escape = _mm512_cmpeq_epi8_mask(entry, tables.escape);
  std::memcpy(escapes, &is_escape, sizeof is_escape);

  // Products of odd lanes: both factors in upper bytes, the product's upper half.
  const __m512i freq_even = _mm512_maskz_permutexvar_epi8(0x5555555555555555, entry, tables.freq);
  const __m512i freq_odd = _mm512_maskz_permutexvar_epi8(0xaaaaaaaaaaaaaaaa, entry, tables.freq);
  const __m512i state_even =
      _mm512_add_epi16(_mm512_mullo_epi16(freq_even, even(lanes.high)), even(rank));
  const __m512i state_odd =
      _mm512_add_epi16(_mm512_mulhi_epu16(freq_odd, odd_in_place(lanes.high)), odd(rank));
  const __m512i new_low = low_bytes(state_even, state_odd);
  const __m512i new_high = high_bytes(state_even, state_odd);

  const __mmask64 need = _mm512_testn_epi8_mask(new_high, new_high);
  const int needed = std::popcount(static_cast<uint64_t>(need));
  if constexpr (IsBounded) {
    if (needed > end - in) return false;
  }
  const __m512i bytes = IsBounded ? load_up_to(in, end) : load(in);
  in += needed;
  lanes.high = _mm512_mask_mov_epi8(new_high, need, new_low);
  lanes.low = _mm512_mask_expand_epi8(new_low, need, bytes);
  return true;
}

}  // namespace

CAKE_AVX512 const uint8_t* rans_decode(RansStates& states, const RansTable& table,
                                       const uint8_t* in, const uint8_t* end, uint8_t* out,
                                       size_t count, uint32_t* escapes) {
  const DecodeTables tables = load_decode_tables(table);
  Lanes lanes[2];
  load_lanes(lanes, states);
  size_t done = 0;
  // A step takes at most 128 bytes, and loads none behind these.
  for (; count - done >= kRansLanes && end - in >= static_cast<ptrdiff_t>(kRansLanes);
       done += kRansLanes) {
    decode_64<false>(lanes[0], tables, in, end, out + done, escapes + done / 32);
    decode_64<false>(lanes[1], tables, in, end, out + done + 64, escapes + done / 32 + 2);
  }
  for (; count - done >= kRansLanes; done += kRansLanes)
    if (!decode_64<true>(lanes[0], tables, in, end, out + done, escapes + done / 32) ||
        !decode_64<true>(lanes[1], tables, in, end, out + done + 64, escapes + done / 32 + 2))
      return nullptr;
  store_lanes(lanes, states);
  if (done == count) return in;
  return scalar_kernels().rans_decode(states, table, in, end, out + done, count - done,
                                      escapes + done / 32);
}

// --- Encoding ---

namespace {

// Puts the bytes in the mask below `out`, where 32 bytes more may change.  (A compressing or a
// masked store would change none, but is slow on some processors.)
CAKE_AVX512_INLINE void put_bytes(__m512i bytes, __mmask64 mask, uint8_t*& out) {
  const auto count = static_cast<size_t>(std::popcount(static_cast<uint64_t>(mask)));
  const __m512i packed =
      look_up(_mm512_maskz_compress_epi8(mask, bytes), load(kRotations.data() + count));
  store_half(out - 32, high_half(packed));
  if (count > 32) store_half(out - 64, low_half(packed));
  out -= count;
}

// By entry; the reciprocals of up to 32 are 16-bit numbers in `reciprocal`.
struct EncodeTables {
  __m512i freq, start, reciprocal, reciprocal_low, reciprocal_high;
  Table256 slots;
};

// The reciprocals of the entries of even and of odd lanes.
template <bool HasFew>
CAKE_AVX512_INLINE void find_reciprocals(__m512i entry, const EncodeTables& tables,
                                         __m512i& of_even, __m512i& of_odd) {
  if constexpr (HasFew) {
    of_even = _mm512_permutexvar_epi16(entry, tables.reciprocal);
    of_odd = _mm512_permutexvar_epi16(odd(entry), tables.reciprocal);
  } else {
    const __m512i low = look_up(tables.reciprocal_low, entry);
    const __m512i high = look_up(tables.reciprocal_high, entry);
    of_even = low_bytes(low, high);
    of_odd = high_bytes(low, high);
  }
}

// Quotient and remainder of states by frequencies, 16 bits each.
CAKE_AVX512_INLINE void divide(__m512i state, __m512i freq, __m512i reciprocal, __m512i& quotient,
                               __m512i& remainder) {
  const __m512i guess = _mm512_mulhi_epu16(state, reciprocal);
  const __m512i left = _mm512_sub_epi16(state, _mm512_mullo_epi16(guess, freq));
  const __mmask32 is_low = _mm512_cmpge_epu16_mask(left, freq);
  quotient = _mm512_mask_add_epi16(guess, is_low, guess, _mm512_set1_epi16(1));
  remainder = _mm512_mask_sub_epi16(left, is_low, left, freq);
}

template <bool HasFew>
CAKE_AVX512_INLINE void encode_64(Lanes& lanes, __m512i entry, const EncodeTables& tables,
                                  uint8_t*& out) {
  const __m512i freq = look_up(tables.freq, entry);
  const __mmask64 is_full = _mm512_cmpge_epu8_mask(lanes.high, freq);
  put_bytes(lanes.low, is_full, out);
  const __m512i low = _mm512_mask_mov_epi8(lanes.low, is_full, lanes.high);
  const __m512i high = _mm512_mask_mov_epi8(lanes.high, is_full, _mm512_setzero_si512());

  __m512i reciprocal_even, reciprocal_odd;
  find_reciprocals<HasFew>(entry, tables, reciprocal_even, reciprocal_odd);
  __m512i quotient_even, remainder_even, quotient_odd, remainder_odd;
  divide(low_bytes(low, high), even(freq), reciprocal_even, quotient_even, remainder_even);
  divide(high_bytes(low, high), odd(freq), reciprocal_odd, quotient_odd, remainder_odd);
  const __m512i rank = low_bytes(remainder_even, remainder_odd);
  lanes.high = low_bytes(quotient_even, quotient_odd);
  lanes.low = look_up_256(tables.slots, _mm512_add_epi8(rank, look_up(tables.start, entry)));
}

template <bool HasFew>
CAKE_AVX512_INLINE EncodeTables load_encode_tables(const RansEncodeTable& table) {
  EncodeTables tables;
  tables.freq = load(table.freq.data());
  tables.start = load(table.start.data());
  if constexpr (HasFew) {
    std::array<uint16_t, 32> reciprocals;
    for (size_t i = 0; i < reciprocals.size(); i++)
      reciprocals[i] =
          static_cast<uint16_t>(table.reciprocal_low[i] | table.reciprocal_high[i] << 8);
    tables.reciprocal = load(reciprocals.data());
  } else {
    tables.reciprocal_low = load(table.reciprocal_low.data());
    tables.reciprocal_high = load(table.reciprocal_high.data());
  }
  tables.slots = load_table_256(table.slots.data());
  return tables;
}

template <bool HasFew>
CAKE_AVX512 uint8_t* encode(RansStates& states, const RansEncodeTable& table,
                            const uint8_t* entries, size_t count, uint8_t* out) {
  const size_t whole = count / kRansLanes * kRansLanes;
  out = scalar_kernels().rans_encode(states, table, entries + whole, count - whole, out);
  const EncodeTables tables = load_encode_tables<HasFew>(table);
  Lanes lanes[2];
  load_lanes(lanes, states);
  for (size_t at = whole; at > 0; at -= kRansLanes) {
    const uint8_t* const from = entries + at - kRansLanes;
    encode_64<HasFew>(lanes[1], load(from + kVectorLanes), tables, out);
    encode_64<HasFew>(lanes[0], load(from), tables, out);
  }
  store_lanes(lanes, states);
  return out;
}

}  // namespace

uint8_t* rans_encode(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                     size_t count, uint8_t* out) {
  return table.entries <= 32 ? encode<true>(states, table, entries, count, out)
                             : encode<false>(states, table, entries, count, out);
}

CAKE_AVX512 size_t map_entries(const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                               uint8_t* entries, uint8_t* escaped) {
  const size_t whole = count / kVectorLanes * kVectorLanes;
  const Table256 table = load_table_256(map);
  const __m512i escape_entry = all_bytes(static_cast<int>(escape));
  size_t escapes = 0;
  for (size_t at = 0; at < whole; at += kVectorLanes) {
    const __m512i bytes = load(in + at);
    const __m512i entry = look_up_256(table, bytes);
    store(entries + at, entry);
    // All 64 bytes are written: no more than `at` came before, so there is room.
    const __mmask64 is_escape = _mm512_cmpeq_epi8_mask(entry, escape_entry);
    store(escaped + escapes, _mm512_maskz_compress_epi8(is_escape, bytes));
    escapes += static_cast<size_t>(std::popcount(static_cast<uint64_t>(is_escape)));
  }
  return escapes + scalar_kernels().map_entries(in + whole, count - whole, map, escape,
                                                entries + whole, escaped + escapes);
}

}  // namespace cake::CAKE_AVX512_NAMESPACE

#endif
