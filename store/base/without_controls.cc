#include "store/base/without_controls.h"

#include <algorithm>
#include <cstdint>

namespace cake {

namespace {

uint8_t byte_at(std::string_view text, size_t at) {
  return static_cast<uint8_t>(text[at]);
}

// Bytes of the well-formed UTF-8 character that begins here (Unicode, table 3-7); 0 when none does.
// Overlong forms are none: a careless decoder would make control characters of them.
size_t utf8_bytes_at(std::string_view text, size_t at) {
  const uint8_t lead = byte_at(text, at);
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const size_t bytes = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (text.size() - at < bytes) return 0;
  for (size_t i = 1; i < bytes; i++)
    if ((byte_at(text, at + i) & 0xc0) != 0x80) return 0;
  const uint8_t second = byte_at(text, at + 1);
  if ((lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90) ||
      (lead == 0xf4 && second >= 0x90))
    return 0;
  return bytes;
}

bool is_c1(uint8_t byte) {
  return byte >= 0x80 && byte < 0xa0;
}

}  // namespace

std::string without_controls(std::string_view text, char instead) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const uint8_t byte = byte_at(text, at);
    const size_t bytes = std::max<size_t>(1, utf8_bytes_at(text, at));
    const bool is_control = byte < 0x20 || byte == 0x7f || is_c1(byte) ||
                            (byte == 0xc2 && bytes == 2 && is_c1(byte_at(text, at + 1)));
    if (is_control)
      out += instead;
    else
      out += text.substr(at, bytes);
    at += bytes;
  }
  return out;
}

}  // namespace cake
