#include "tests/support/pattern.h"

#include <algorithm>
#include <array>
#include <random>

namespace cake {

namespace {
// SplitMix64's mixing of a counter: byte i depends on seed and i only.
uint64_t word_at(uint64_t seed, uint64_t index) {
  uint64_t z = (seed + 1) * 0xd1342543de82ef95U + (index + 1) * 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31);
}
}  // namespace

void fill_pattern(uint64_t seed, uint64_t offset, MutableByteSpan out) {
  std::array<std::byte, 8> word;
  while (!out.empty() && (offset % 8 != 0 || out.size() < 8)) {
    store_le(word.data(), word_at(seed, offset / 8));
    const size_t skip = offset % 8;
    const size_t part = std::min<size_t>(8 - skip, out.size());
    std::memcpy(out.data(), word.data() + skip, part);
    out = out.subspan(part);
    offset += part;
  }
  size_t i = 0;
  for (; i + 8 <= out.size(); i += 8) store_le(out.data() + i, word_at(seed, (offset + i) / 8));
  if (i < out.size()) fill_pattern(seed, offset + i, out.subspan(i));
}

Buffer pattern_bytes(uint64_t seed, uint64_t offset, uint64_t length) {
  Buffer out(length);
  fill_pattern(seed, offset, out);
  return out;
}

Buffer pattern_bytes(uint64_t length) {
  return pattern_bytes(0, 0, length);
}

Buffer random_bytes(uint64_t seed, size_t size) {
  std::mt19937_64 random(seed);
  Buffer bytes(size);
  for (size_t at = 0; at < size; at += 8) {
    const uint64_t value = random();
    std::memcpy(&bytes[at], &value, std::min<size_t>(8, size - at));
  }
  return bytes;
}

std::string random_text(size_t size, uint64_t seed) {
  return std::string(as_text(random_bytes(seed, size)));
}

}  // namespace cake
