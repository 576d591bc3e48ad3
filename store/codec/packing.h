// Planes of less than a byte an element, packed so that vectors of 32 bytes (or two of 16) need
// shifts and masks only.  Elements behind the last whole group take a byte each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cake {

constexpr size_t kRowBytes = 32;
// Elements of a group: rows of 32.
constexpr size_t kGroup1 = 8 * kRowBytes;  // 1 bit each: 32 bytes
constexpr size_t kGroup2 = 4 * kRowBytes;  // 2 bits each: 32 bytes
constexpr size_t kGroup7 = 8 * kRowBytes;  // 7 bits each: 224 bytes
constexpr size_t kGroup7Bytes = 7 * kRowBytes;

// Bytes that `count` elements of `bits` (1, 2, 7 or 8) take.
constexpr size_t packed_bytes(unsigned bits, size_t count) {
  switch (bits) {
    case 1:
      return count / kGroup1 * kRowBytes + count % kGroup1;
    case 2:
      return count / kGroup2 * kRowBytes + count % kGroup2;
    case 7:
      return count / kGroup7 * kGroup7Bytes + count % kGroup7;
    default:
      return count;
  }
}

// Bit k of byte j is element 32k + j.
inline void pack1(const uint8_t* elements, uint8_t* out) {
  for (size_t j = 0; j < kRowBytes; j++) {
    unsigned byte = 0;
    for (size_t k = 0; k < 8; k++) byte |= static_cast<unsigned>(elements[32 * k + j]) << k;
    out[j] = static_cast<uint8_t>(byte);
  }
}
inline void unpack1(const uint8_t* in, uint8_t* elements) {
  for (size_t k = 0; k < 8; k++)
    for (size_t j = 0; j < kRowBytes; j++)
      elements[32 * k + j] = static_cast<uint8_t>(in[j] >> k & 1);
}

// Bits 2k and 2k + 1 of byte j are element 32k + j.
inline void pack2(const uint8_t* elements, uint8_t* out) {
  for (size_t j = 0; j < kRowBytes; j++) {
    unsigned byte = 0;
    for (size_t k = 0; k < 4; k++) byte |= static_cast<unsigned>(elements[32 * k + j]) << (2 * k);
    out[j] = static_cast<uint8_t>(byte);
  }
}
inline void unpack2(const uint8_t* in, uint8_t* elements) {
  for (size_t k = 0; k < 4; k++)
    for (size_t j = 0; j < kRowBytes; j++)
      elements[32 * k + j] = static_cast<uint8_t>(in[j] >> (2 * k) & 3);
}

// Byte 32k + j, k < 7, is element 32k + j and, as its top bit, bit k of element 224 + j.
inline void pack7(const uint8_t* elements, uint8_t* out) {
  for (size_t k = 0; k < 7; k++)
    for (size_t j = 0; j < kRowBytes; j++)
      out[32 * k + j] =
          static_cast<uint8_t>(elements[32 * k + j] | (elements[224 + j] >> k & 1) << 7);
}
inline void unpack7(const uint8_t* in, uint8_t* elements) {
  for (size_t j = 0; j < kRowBytes; j++) {
    unsigned last = 0;
    for (size_t k = 0; k < 7; k++) {
      elements[32 * k + j] = in[32 * k + j] & 0x7f;
      last |= static_cast<unsigned>(in[32 * k + j] >> 7) << k;
    }
    elements[224 + j] = static_cast<uint8_t>(last);
  }
}

}  // namespace cake
