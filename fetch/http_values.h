// Values in requests: ranges, percent-encoding, queries.  Pure; input is hostile.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/base/bytes.h"
#include "store/base/result.h"

namespace cake {

// "Range: bytes=a-b", "a-", "-n" against a size.  Several ranges, or none, or another unit: nullopt
// (the whole is the answer).  Errors: invalid when nothing of the range exists (416).
Result<std::optional<ByteRange>> parse_range_header(std::string_view header, uint64_t file_bytes);

// "%2F" and the like; nullopt when malformed or when a NUL results.
std::optional<std::string> decode_uri_part(std::string_view text);
// Value of a key of a query string, decoded ('+' is a space); nullopt when absent or malformed.
std::optional<std::string> find_query(std::string_view query, std::string_view key);

}  // namespace cake
