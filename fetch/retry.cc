#include "fetch/retry.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>

#include "store/base/bytes.h"

namespace cake {
namespace {

constexpr int64_t kLongestAskedSeconds = 3600;

// Larger ones are this.
constexpr int64_t kLargestNumber = int64_t{1} << 40;

std::optional<int64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return kLargestNumber;
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return static_cast<int64_t>(std::min<uint64_t>(value, kLargestNumber));
}

// The number of `key` ("r=") in a value like `"api";r=0;t=55`.
std::optional<int64_t> find_number(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const size_t end = std::min(text.find(';'), text.size());
    const std::string_view part = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (part.starts_with(key)) return parse_number(part.substr(key.size()));
  }
  return std::nullopt;
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

bool is_refusal(Errc code) {
  return code == Errc::denied || code == Errc::not_found;
}

std::optional<int64_t> parse_http_date(std::string_view text) {
  std::tm parts{};
  const std::string copy(text);
  const char* rest = strptime(copy.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (rest == nullptr || *rest != '\0') return std::nullopt;
  return static_cast<int64_t>(timegm(&parts));
}

std::optional<RateLimit> parse_rate_limit(const HttpResponseHead& head) {
  const std::string_view text = head.find("ratelimit");
  const std::optional<int64_t> remaining = find_number(text, "r=");
  const std::optional<int64_t> seconds = find_number(text, "t=");
  if (!remaining || !seconds) return std::nullopt;
  return RateLimit{*remaining, *seconds, find_number(head.find("ratelimit-policy"), "q=")};
}

std::optional<Millis> asked_delay(const HttpResponseHead& head, int64_t unix_seconds) {
  const std::optional<RateLimit> limit = parse_rate_limit(head);
  std::optional<int64_t> seconds;
  if (limit && limit->remaining == 0) seconds = limit->seconds;
  if (!seconds) {
    const std::string_view value = trimmed(head.find("retry-after"));
    if (value.empty()) return std::nullopt;
    seconds = parse_number(value);
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
