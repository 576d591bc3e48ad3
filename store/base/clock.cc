#include "store/base/clock.h"

#include <array>
#include <cstdio>
#include <ctime>

namespace cake {

int64_t unix_now() {
  return static_cast<int64_t>(std::time(nullptr));
}

std::string format_rfc3339(int64_t unix_seconds) {
  const std::time_t time = unix_seconds;
  std::tm parts{};
  gmtime_r(&time, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

std::optional<int64_t> parse_rfc3339(std::string_view text) {
  std::tm parts{};
  const std::string copy(text);
  const char* rest = strptime(copy.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  if (rest == nullptr) return std::nullopt;
  if (*rest == '.') {
    rest++;
    while (*rest >= '0' && *rest <= '9') rest++;
  }
  int64_t zone_seconds = 0;
  if (*rest == 'Z') {
    rest++;
  } else if (*rest == '+' || *rest == '-') {
    int hours = 0, minutes = 0, used = 0;
    if (std::sscanf(rest + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2) return std::nullopt;
    zone_seconds = (hours * 60 + minutes) * 60 * (*rest == '-' ? -1 : 1);
    rest += 1 + used;
  }
  if (*rest != '\0') return std::nullopt;
  return static_cast<int64_t>(timegm(&parts)) - zone_seconds;
}

Status Deadline::check() const {
  if (is_cancelled()) return Error{Errc::cancelled, "interrupted"};
  if (has_passed()) return Error{Errc::timeout, "deadline passed"};
  return {};
}

}  // namespace cake
