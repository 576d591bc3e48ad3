// The reference: every other set gives these bytes.
#include <algorithm>
#include <bit>

#include "store/codec/kernels.h"
#include "store/codec/packing.h"

namespace cake {

namespace {

uint16_t load16(const uint8_t* in) {
  return static_cast<uint16_t>(in[0] | in[1] << 8);
}
void store16(uint8_t* out, unsigned value) {
  out[0] = static_cast<uint8_t>(value);
  out[1] = static_cast<uint8_t>(value >> 8);
}
uint32_t load32(const uint8_t* in) {
  return load_le32(reinterpret_cast<const std::byte*>(in));
}
void store32(uint8_t* out, uint32_t value) {
  store_le(reinterpret_cast<std::byte*>(out), value);
}

// --- rans ---

const uint8_t* rans_decode(RansStates& states, const RansTable& table, const uint8_t* in,
                           const uint8_t* end, uint8_t* out, size_t count, uint32_t* escapes) {
  struct Slot {
    uint8_t freq, rank, value, is_escape;
  };
  std::array<Slot, kRansSlots> slots;
  for (unsigned i = 0; i < kRansSlots; i++) {
    const auto [entry, rank] = table.slot(i);
    slots[i] = {table.freq[entry], rank, table.value[entry], entry == table.escape};
  }
  std::fill_n(escapes, (count + 31) / 32, 0);
  for (size_t i = 0; i < count; i++) {
    const size_t lane = i % kRansLanes;
    const Slot slot = slots[states.low[lane]];
    unsigned state = slot.freq * unsigned{states.high[lane]} + slot.rank;
    if (state < kRansSlots) {
      if (in == end) return nullptr;
      state = state << 8 | *in++;
    }
    states.low[lane] = static_cast<uint8_t>(state);
    states.high[lane] = static_cast<uint8_t>(state >> 8);
    out[i] = slot.value;
    escapes[i / 32] |= uint32_t{slot.is_escape} << i % 32;
  }
  return in;
}

uint8_t* rans_encode(RansStates& states, const RansEncodeTable& table, const uint8_t* entries,
                     size_t count, uint8_t* out) {
  for (size_t i = count; i-- > 0;) {
    const size_t lane = i % kRansLanes;
    const unsigned entry = entries[i];
    const unsigned freq = table.freq[entry];
    unsigned state = states.low[lane] | unsigned{states.high[lane]} << 8;
    if (state >> 8 >= freq) {
      *--out = static_cast<uint8_t>(state);
      state >>= 8;
    }
    const unsigned slot = table.slots[table.start[entry] + state % freq];
    states.low[lane] = static_cast<uint8_t>(slot);
    states.high[lane] = static_cast<uint8_t>(state / freq);
  }
  return out;
}

size_t map_entries(const uint8_t* in, size_t count, const uint8_t* map, unsigned escape,
                   uint8_t* entries, uint8_t* escaped) {
  size_t escapes = 0;
  for (size_t i = 0; i < count; i++) {
    entries[i] = map[in[i]];
    escaped[escapes] = in[i];
    escapes += entries[i] == escape;
  }
  return escapes;
}

// --- elements and planes ---

// Splits or merges in groups; `step` is given up to `Group` elements and temporaries for them.
template <size_t Group, typename Step>
void for_groups(size_t count, const Step& step) {
  for (size_t i = 0; i < count; i += Group) step(i, std::min(Group, count - i));
}

void split_bf16(const uint8_t* in, size_t count, uint8_t bias, uint8_t* symbols, uint8_t* tops,
                uint8_t* rest) {
  for_groups<kGroup7>(count, [&](size_t at, size_t size) {
    uint8_t top[kGroup1], low[kGroup7];
    for (size_t i = 0; i < size; i++) {
      const unsigned element = load16(in + 2 * (at + i));
      const unsigned exponent = (element >> 7) - bias;
      symbols[at + i] = static_cast<uint8_t>(exponent << 1 | (element >> 6 & 1));
      top[i] = exponent >> 7 & 1;
      low[i] = static_cast<uint8_t>((element >> 15) << 6 | (element & 0x3f));
    }
    uint8_t* const tops_at = tops + packed_bytes(1, at);
    uint8_t* const rest_at = rest + packed_bytes(7, at);
    if (size == kGroup7) {
      pack1(top, tops_at);
      pack7(low, rest_at);
    } else {
      std::copy_n(top, size, tops_at);
      std::copy_n(low, size, rest_at);
    }
  });
}

void merge_bf16(const uint8_t* symbols, const uint8_t* tops, const uint8_t* rest, size_t count,
                uint8_t bias, uint8_t* out) {
  for_groups<kGroup7>(count, [&](size_t at, size_t size) {
    uint8_t top[kGroup1], low[kGroup7];
    const uint8_t* const tops_at = tops + packed_bytes(1, at);
    const uint8_t* const rest_at = rest + packed_bytes(7, at);
    if (size == kGroup7) {
      unpack1(tops_at, top);
      unpack7(rest_at, low);
    } else {
      for (size_t i = 0; i < size; i++) {
        top[i] = tops_at[i] & 1;
        low[i] = rest_at[i] & 0x7f;
      }
    }
    for (size_t i = 0; i < size; i++) {
      const unsigned symbol = symbols[at + i];
      const unsigned exponent = ((symbol >> 1 | unsigned{top[i]} << 7) + bias) & 0xff;
      store16(out + 2 * (at + i),
              (low[i] & 0x40U) << 9 | exponent << 7 | (symbol & 1) << 6 | (low[i] & 0x3fU));
    }
  });
}

void split_f16(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs, uint8_t* lows) {
  for_groups<kGroup2>(count, [&](size_t at, size_t size) {
    uint8_t pair[kGroup2];
    for (size_t i = 0; i < size; i++) {
      const unsigned element = load16(in + 2 * (at + i));
      symbols[at + i] = element >> 9 & 0x3f;
      pair[i] = static_cast<uint8_t>((element >> 8 & 1) | (element >> 15) << 1);
      lows[at + i] = static_cast<uint8_t>(element);
    }
    if (size == kGroup2)
      pack2(pair, pairs + packed_bytes(2, at));
    else
      std::copy_n(pair, size, pairs + packed_bytes(2, at));
  });
}

// The pairs from `at`; those behind whole groups are bytes whose other bits do not count.
void unpack_pairs(const uint8_t* pairs, size_t at, size_t size, uint8_t* pair) {
  const uint8_t* const from = pairs + packed_bytes(2, at);
  if (size == kGroup2) return unpack2(from, pair);
  for (size_t i = 0; i < size; i++) pair[i] = from[i] & 3;
}

void merge_f16(const uint8_t* symbols, const uint8_t* pairs, const uint8_t* lows, size_t count,
               uint8_t* out) {
  for_groups<kGroup2>(count, [&](size_t at, size_t size) {
    uint8_t pair[kGroup2];
    unpack_pairs(pairs, at, size, pair);
    for (size_t i = 0; i < size; i++)
      store16(out + 2 * (at + i), lows[at + i] | (pair[i] & 1U) << 8 |
                                      (symbols[at + i] & 0x3fU) << 9 |
                                      unsigned{pair[i]} >> 1 << 15);
  });
}

template <typename Symbol, typename Pair>
void split_bytes(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs,
                 const Symbol& symbol_of, const Pair& pair_of) {
  for_groups<kGroup2>(count, [&](size_t at, size_t size) {
    uint8_t pair[kGroup2];
    for (size_t i = 0; i < size; i++) {
      symbols[at + i] = static_cast<uint8_t>(symbol_of(unsigned{in[at + i]}));
      pair[i] = static_cast<uint8_t>(pair_of(unsigned{in[at + i]}));
    }
    if (size == kGroup2)
      pack2(pair, pairs + packed_bytes(2, at));
    else
      std::copy_n(pair, size, pairs + packed_bytes(2, at));
  });
}

template <typename Element>
void merge_bytes(const uint8_t* symbols, const uint8_t* pairs, size_t count, uint8_t* out,
                 const Element& element_of) {
  for_groups<kGroup2>(count, [&](size_t at, size_t size) {
    uint8_t pair[kGroup2];
    unpack_pairs(pairs, at, size, pair);
    for (size_t i = 0; i < size; i++)
      out[at + i] = static_cast<uint8_t>(element_of(symbols[at + i] & 0x3fU, unsigned{pair[i]}));
  });
}

void split_fp8(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
  split_bytes(
      in, count, symbols, pairs, [](unsigned byte) { return byte >> 1 & 0x3f; },
      [](unsigned byte) { return (byte & 1) | byte >> 7 << 1; });
}
void merge_fp8(const uint8_t* symbols, const uint8_t* pairs, size_t count, uint8_t* out) {
  merge_bytes(symbols, pairs, count, out, [](unsigned symbol, unsigned pair) {
    return symbol << 1 | (pair & 1) | pair >> 1 << 7;
  });
}
void split_int8(const uint8_t* in, size_t count, uint8_t* symbols, uint8_t* pairs) {
  split_bytes(
      in, count, symbols, pairs, [](unsigned byte) { return byte >> 2; },
      [](unsigned byte) { return byte & 3; });
}
void merge_int8(const uint8_t* symbols, const uint8_t* pairs, size_t count, uint8_t* out) {
  merge_bytes(symbols, pairs, count, out,
              [](unsigned symbol, unsigned pair) { return symbol << 2 | pair; });
}

void split_f32(const uint8_t* in, size_t count, uint8_t* upper, uint8_t* mid, uint8_t* low) {
  for (size_t i = 0; i < count; i++) {
    low[i] = in[4 * i];
    mid[i] = in[4 * i + 1];
    upper[2 * i] = in[4 * i + 2];
    upper[2 * i + 1] = in[4 * i + 3];
  }
}
void merge_f32(const uint8_t* upper, const uint8_t* mid, const uint8_t* low, size_t count,
               uint8_t* out) {
  for (size_t i = 0; i < count; i++) {
    out[4 * i] = low[i];
    out[4 * i + 1] = mid[i];
    out[4 * i + 2] = upper[2 * i];
    out[4 * i + 3] = upper[2 * i + 1];
  }
}

uint32_t widened(uint16_t half) {
  const uint32_t sign = uint32_t{half} >> 15 << 31;
  const uint32_t exponent = half >> 10 & 0x1f;
  const uint32_t fraction = half & 0x3ff;
  if (exponent == 0x1f)
    return sign | 0x7f800000 | fraction << 13 | (fraction != 0 ? 0x400000U : 0U);
  if (exponent != 0) return sign | (exponent + 112) << 23 | fraction << 13;
  if (fraction == 0) return sign;
  // A denormal, 2^-24 * fraction, is normal as F32.
  const auto top = static_cast<uint32_t>(std::bit_width(fraction)) - 1;
  return sign | (top + 103) << 23 | (fraction << (23 - top) & 0x7fffff);
}

bool narrow_f32(const uint8_t* in, size_t count, uint8_t* out) {
  for (size_t i = 0; i < count; i++) {
    const uint32_t wide = load32(in + 4 * i);
    const uint32_t sign = wide >> 31 << 15;
    const uint32_t exponent = wide >> 23 & 0xff;
    const uint32_t fraction = wide & 0x7fffff;
    uint32_t half = sign;
    if (exponent >= 113 && exponent <= 142) {
      half |= (exponent - 112) << 10 | fraction >> 13;
    } else if (exponent >= 103 && exponent < 113) {
      half |= (fraction | 0x800000) >> (126 - exponent);
    }
    if (widened(static_cast<uint16_t>(half)) != wide) return false;
    store16(out + 2 * i, half);
  }
  return true;
}

void widen_f16(const uint8_t* in, size_t count, uint8_t* out) {
  for (size_t i = 0; i < count; i++) store32(out + 4 * i, widened(load16(in + 2 * i)));
}

}  // namespace

const CodecKernels& scalar_kernels() {
  static constexpr CodecKernels kKernels = {
      "scalar",   false,     rans_decode, rans_encode, map_entries, split_bf16,
      merge_bf16, split_f16, merge_f16,   split_fp8,   merge_fp8,   split_int8,
      merge_int8, split_f32, merge_f32,   narrow_f32,  widen_f16};
  return kKernels;
}

}  // namespace cake
