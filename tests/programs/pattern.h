// The bytes of pattern_mount's files: a function of the offset, so that any reader can check any
// read.
#pragma once

#include <cstdint>

namespace cake {

constexpr uint64_t kPatternBytes = uint64_t{256} << 20;

inline unsigned char pattern_at(uint64_t offset) {
  return static_cast<unsigned char>((offset * 2654435761u) >> 13 ^ offset >> 20);
}

}  // namespace cake
