#include "fetch/http_values.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace cake {

Result<std::optional<ByteRange>> parse_range_header(std::string_view header, uint64_t file_bytes) {
  constexpr std::string_view kUnit = "bytes=";
  if (!header.starts_with(kUnit)) return std::nullopt;
  header.remove_prefix(kUnit.size());
  const size_t dash = header.find('-');
  if (dash == std::string_view::npos || header.find(',') != std::string_view::npos)
    return std::nullopt;
  const auto number = [](std::string_view text) -> std::optional<uint64_t> {
    uint64_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
    return value;
  };
  const std::string_view first_text = header.substr(0, dash), last_text = header.substr(dash + 1);
  const Error nothing{Errc::invalid, "the range is not within the file"};
  if (first_text.empty()) {
    const auto tail = number(last_text);
    if (!tail) return std::nullopt;
    if (*tail == 0 || file_bytes == 0) return nothing;
    const uint64_t length = std::min(*tail, file_bytes);
    return std::optional(ByteRange{file_bytes - length, length});
  }
  const auto first = number(first_text);
  const auto last = last_text.empty() ? std::optional(UINT64_MAX) : number(last_text);
  if (!first || !last || *last < *first) return std::nullopt;
  if (*first >= file_bytes) return nothing;
  return std::optional(ByteRange{*first, std::min(*last, file_bytes - 1) - *first + 1});
}

std::optional<std::string> decode_uri_part(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    std::array<std::byte, 1> byte{};
    if (i + 2 >= text.size() || !parse_hex(text.substr(i + 1, 2), byte)) return std::nullopt;
    out += static_cast<char>(byte[0]);
    i += 2;
  }
  if (out.find('\0') != std::string::npos) return std::nullopt;
  return out;
}

std::optional<std::string> find_query(std::string_view query, std::string_view key) {
  while (!query.empty()) {
    const size_t end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    const size_t equals = pair.find('=');
    if (decode_uri_part(pair.substr(0, equals)) != key) continue;
    std::string value(equals == std::string_view::npos ? "" : pair.substr(equals + 1));
    std::replace(value.begin(), value.end(), '+', ' ');
    return decode_uri_part(value);
  }
  return std::nullopt;
}

}  // namespace cake
