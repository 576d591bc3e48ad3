// What an operator reads: one line an event, with repo, file and range; never a token or signed
// URL.
#pragma once

#include <string>
#include <string_view>

#include "store/base/bytes.h"
#include "store/base/result.h"

namespace cake {

enum class LogLevel { error, warn, info, debug };

std::optional<LogLevel> parse_log_level(std::string_view name);

// Where lines go.  Call at start-up, before other threads exist; until then: stderr, warn.
// `target` is "stderr", "syslog" or a file's path (appended, reopened by open_log again).
// Errors: io when the file cannot be opened.
Status open_log(std::string_view target, LogLevel level, std::string_view program);

// Thread-safe.
void log_line(LogLevel level, std::string_view text);
inline void log_error(std::string_view text) {
  log_line(LogLevel::error, text);
}
inline void log_warn(std::string_view text) {
  log_line(LogLevel::warn, text);
}
inline void log_info(std::string_view text) {
  log_line(LogLevel::info, text);
}
inline void log_debug(std::string_view text) {
  log_line(LogLevel::debug, text);
}

}  // namespace cake
