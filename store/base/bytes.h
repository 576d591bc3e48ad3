// Bytes, sizes, and the checked arithmetic that hostile input needs.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cake {

using ByteSpan = std::span<const std::byte>;
using MutableByteSpan = std::span<std::byte>;
using Buffer = std::vector<std::byte>;

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;
constexpr uint64_t kGiB = 1024 * kMiB;

// A run of a file or object: [offset, offset + length), in bytes.
struct ByteRange {
  uint64_t offset = 0;
  uint64_t length = 0;
  uint64_t end() const { return offset + length; }
  bool operator==(const ByteRange&) const = default;
};

inline ByteSpan as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Buffer to_buffer(ByteSpan bytes) {
  return Buffer(bytes.begin(), bytes.end());
}

inline std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}
inline std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}
// `alignment` is a power of two; the caller keeps `value` far from 2^64.
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

// Little-endian loads and stores at any alignment; `bytes` holds at least the width.
template <typename Int>
Int load_le(const std::byte* bytes) {
  Int value;
  std::memcpy(&value, bytes, sizeof value);
  if constexpr (std::endian::native == std::endian::big) {
    Int swapped = 0;
    for (size_t i = 0; i < sizeof value; i++)
      swapped =
          static_cast<Int>(swapped | (((value >> (8 * i)) & 0xff) << (8 * (sizeof value - 1 - i))));
    value = swapped;
  }
  return value;
}
inline uint16_t load_le16(const std::byte* bytes) {
  return load_le<uint16_t>(bytes);
}
inline uint32_t load_le32(const std::byte* bytes) {
  return load_le<uint32_t>(bytes);
}
inline uint64_t load_le64(const std::byte* bytes) {
  return load_le<uint64_t>(bytes);
}

template <typename Int>
void store_le(std::byte* bytes, Int value) {
  for (size_t i = 0; i < sizeof value; i++)
    bytes[i] = static_cast<std::byte>((value >> (8 * i)) & 0xff);
}

// Lower-case hexadecimal, and back; parse_hex wants exactly 2 * out.size() digits.
std::string hex(ByteSpan bytes);
bool parse_hex(std::string_view text, MutableByteSpan out);
bool is_hex(std::string_view text, size_t digits);

// How many bytes two texts begin with alike.
size_t shared_prefix(std::string_view a, std::string_view b);
// Without the spaces, tabs and line ends around it.
std::string_view trimmed(std::string_view text);

// Appends anything std::to_string or a string takes: cat("pack ", 7, " is short").
namespace internal {
inline void append(std::string& out, std::string_view text) {
  out += text;
}
inline void append(std::string& out, const char* text) {
  out += text;
}
inline void append(std::string& out, char letter) {
  out += letter;
}
template <typename Number>
requires std::is_arithmetic_v<Number>
void append(std::string& out, Number number) {
  out += std::to_string(number);
}
}  // namespace internal
template <typename... Parts>
std::string cat(const Parts&... parts) {
  std::string out;
  (internal::append(out, parts), ...);
  return out;
}

// Sizes as users write and read them.  parse_size takes "64M", "1.5GiB", "200G", "1000": K, M, G, T
// are powers of 1024 (as in mount options), KB, MB, GB, TB powers of 1000; nullopt if malformed or
// beyond 2^63.  format_size prints "3.1G" style, powers of 1024, at most 3 digits.
std::optional<uint64_t> parse_size(std::string_view text);
std::string format_size(uint64_t bytes);

}  // namespace cake
