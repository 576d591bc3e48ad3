// Text of others, for a terminal or a log.
#pragma once

#include <string>
#include <string_view>

namespace cake {

// `instead` in place of each control character: C0 with newline and tab, DEL, and C1, both as
// UTF-8 (U+0080 to U+009F) and as bytes that are no part of UTF-8.  With them a name from a hub
// could steer a terminal, or forge a line of a log.  All other bytes stay as they are.
std::string without_controls(std::string_view text, char instead);

}  // namespace cake
