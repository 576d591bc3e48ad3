#include "fetch/retry.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>

#include "store/base/bytes.h"

namespace cake {
namespace {

constexpr int64_t kLongestAskedSeconds = 3600;

std::optional<int64_t> parse_seconds(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return kLongestAskedSeconds;
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return static_cast<int64_t>(std::min<uint64_t>(value, kLongestAskedSeconds));
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// `t` of an entry with r=0, in a value like `"api";r=0;t=55`.
std::optional<int64_t> exhausted_for(std::string_view text) {
  std::optional<int64_t> remaining, seconds;
  while (!text.empty()) {
    const size_t end = std::min(text.find(';'), text.size());
    const std::string_view part = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (part.starts_with("r=")) remaining = parse_seconds(part.substr(2));
    if (part.starts_with("t=")) seconds = parse_seconds(part.substr(2));
  }
  return remaining == 0 ? seconds : std::nullopt;
}

}  // namespace

Millis backoff_delay(const BackoffOptions& options, unsigned failures, uint64_t random) {
  Millis whole = options.first;
  for (unsigned i = 1; i < failures && whole < options.longest; i++) whole *= 2;
  whole = std::min(whole, options.longest);
  const auto half = static_cast<uint64_t>(whole.count()) / 2;
  return whole - Millis(half == 0 ? 0 : static_cast<int64_t>(random % (half + 1)));
}

bool is_transient_status(int status) {
  constexpr std::array kStatuses{408, 429, 500, 502, 503, 504};
  return std::find(kStatuses.begin(), kStatuses.end(), status) != kStatuses.end();
}

bool is_transient(Errc code) {
  return code == Errc::offline || code == Errc::timeout || code == Errc::rate_limited ||
         code == Errc::upstream;
}

std::optional<int64_t> parse_http_date(std::string_view text) {
  std::tm parts{};
  const std::string copy(text);
  const char* rest = strptime(copy.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (rest == nullptr || *rest != '\0') return std::nullopt;
  return static_cast<int64_t>(timegm(&parts));
}

std::optional<Millis> asked_delay(const HttpResponseHead& head, int64_t unix_seconds) {
  std::optional<int64_t> seconds = exhausted_for(head.find("ratelimit"));
  if (!seconds) {
    const std::string_view value = trimmed(head.find("retry-after"));
    if (value.empty()) return std::nullopt;
    seconds = parse_seconds(value);
    if (!seconds) {
      const std::optional<int64_t> date = parse_http_date(value);
      if (!date) return std::nullopt;
      // A date before the epoch could overflow the difference.
      seconds = *date > unix_seconds ? *date - unix_seconds : 0;
    }
  }
  return Millis(1000 * (std::min(*seconds, kLongestAskedSeconds) + 1));
}

}  // namespace cake
