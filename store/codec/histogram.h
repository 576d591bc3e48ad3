// How often each byte value occurs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace cake {

constexpr size_t kHistogramLine = 64;

// Counts every `every`-th line of 64 bytes.
inline void count_lines(std::span<const uint8_t> bytes, size_t every,
                        std::span<uint32_t, 256> counts) {
  // Equal neighbours would wait for each other in one table.
  uint32_t partial[4][256] = {};
  const size_t stride = every * kHistogramLine;
  size_t at = 0;
  for (; at + kHistogramLine <= bytes.size(); at += stride) {
    // Processors foresee no long strides.
    constexpr size_t kAhead = 8;
    if (bytes.size() - at > kAhead * stride) __builtin_prefetch(&bytes[at + kAhead * stride]);
    for (size_t i = at; i < at + kHistogramLine; i += 4) {
      uint32_t four;
      std::memcpy(&four, &bytes[i], sizeof four);
      partial[0][four & 0xff]++;
      partial[1][four >> 8 & 0xff]++;
      partial[2][four >> 16 & 0xff]++;
      partial[3][four >> 24]++;
    }
  }
  for (; at < bytes.size(); at++) partial[0][bytes[at]]++;
  for (size_t v = 0; v < 256; v++)
    counts[v] = partial[0][v] + partial[1][v] + partial[2][v] + partial[3][v];
}

}  // namespace cake
