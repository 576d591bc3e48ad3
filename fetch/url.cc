#include "fetch/url.h"

#include <algorithm>
#include <charconv>

#include "store/base/bytes.h"

namespace cake {
namespace {

constexpr size_t kMaxUrlBytes = 16 * kKiB;

bool is_alpha(char letter) {
  return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z');
}
bool is_digit(char letter) {
  return letter >= '0' && letter <= '9';
}
bool is_unreserved(char letter) {
  return is_alpha(letter) || is_digit(letter) ||
         std::string_view("-._~").find(letter) != std::string_view::npos;
}
char lower(char letter) {
  return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
}
int hex_value(char letter) {
  if (is_digit(letter)) return letter - '0';
  const char small = lower(letter);
  return small >= 'a' && small <= 'f' ? small - 'a' + 10 : -1;
}

void append_encoded(std::string& out, char letter) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(letter);
  out += '%';
  out += kDigits[byte >> 4];
  out += kDigits[byte & 15];
}

std::string encode(std::string_view text, bool keep_slash) {
  std::string out;
  out.reserve(text.size());
  for (const char letter : text) {
    if (is_unreserved(letter) || (keep_slash && letter == '/')) {
      out += letter;
    } else {
      append_encoded(out, letter);
    }
  }
  return out;
}

// Checks and repairs characters; nothing else is looked at.
Result<std::string> cleaned(std::string_view text) {
  if (text.size() > kMaxUrlBytes) return Error{Errc::invalid, "URL is longer than 16 KiB"};
  std::string out;
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (byte < 0x20 || byte == 0x7f) return Error{Errc::invalid, "URL has control characters"};
    // Browsers read "\" as "/", curl does not: whose host is http://a\@b?
    if (letter == '\\') return Error{Errc::invalid, "URL has a backslash"};
    if (byte > 0x7f || std::string_view(" \"<>^`{|}").find(letter) != std::string_view::npos) {
      append_encoded(out, letter);
    } else {
      out += letter;
    }
  }
  return out;
}

// "scheme:" at the start, by its length without the colon; 0 when relative.
size_t scheme_length(std::string_view text) {
  if (text.empty() || !is_alpha(text[0])) return 0;
  for (size_t i = 1; i < text.size(); i++) {
    if (text[i] == ':') return i;
    if (!is_alpha(text[i]) && !is_digit(text[i]) &&
        std::string_view("+-.").find(text[i]) == std::string_view::npos)
      return 0;
  }
  return 0;
}

bool is_valid_host(std::string_view host) {
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    const std::string_view inner = host.substr(1, host.size() - 2);
    return inner.size() <= 45 && inner.find(':') != std::string_view::npos &&
           std::all_of(inner.begin(), inner.end(), [](char letter) {
             return hex_value(letter) >= 0 || letter == ':' || letter == '.';
           });
  }
  return !host.empty() && host.size() <= 253 && host.front() != '.' && host.front() != '-' &&
         host.find("..") == std::string_view::npos &&
         std::all_of(host.begin(), host.end(), [](char letter) {
           return is_alpha(letter) || is_digit(letter) || letter == '-' || letter == '.' ||
                  letter == '_';
         });
}

Status set_authority(Url& url, std::string_view authority) {
  if (authority.find('@') != std::string_view::npos)
    return Error{Errc::invalid, "URL has a user name or password; use a token file instead"};
  std::string_view port;
  const size_t bracket = authority.rfind(']');
  const size_t colon = authority.rfind(':');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    port = authority.substr(colon + 1);
    authority = authority.substr(0, colon);
  }
  if (!is_valid_host(authority)) return Error{Errc::invalid, "URL has a bad host name"};
  url.host.assign(authority);
  std::transform(url.host.begin(), url.host.end(), url.host.begin(), lower);
  url.port = url.scheme == "https" ? 443 : 80;
  if (port.empty()) return {};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
  if (error != std::errc() || end != port.data() + port.size() || url.port == 0)
    return Error{Errc::invalid, "URL has a bad port"};
  return {};
}

void set_path_and_query(Url& url, std::string_view text) {
  const size_t question = text.find('?');
  url.path.assign(text.substr(0, question));
  url.query.assign(question == std::string_view::npos ? std::string_view()
                                                      : text.substr(question + 1));
}

// RFC 3986, 5.2.4, for a path that starts with "/".
std::string without_dots(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const size_t next = path.find('/', 1);
    const std::string_view segment = path.substr(0, next);
    path = next == std::string_view::npos ? std::string_view() : path.substr(next);
    const bool is_last = path.empty();
    if (segment == "/.") {
      if (is_last) out += '/';
    } else if (segment == "/..") {
      const size_t slash = out.rfind('/');
      out.resize(slash == std::string::npos ? 0 : slash);
      if (is_last) out += '/';
    } else {
      out += segment;
    }
  }
  return out.empty() ? "/" : out;
}

}  // namespace

Result<Url> Url::parse(std::string_view text) {
  const std::string clean = CAKE_TRY(cleaned(text));
  std::string_view rest = clean;
  Url url;
  url.scheme = std::string(rest.substr(0, scheme_length(rest)));
  std::transform(url.scheme.begin(), url.scheme.end(), url.scheme.begin(), lower);
  if (url.scheme != "http" && url.scheme != "https")
    return Error{Errc::invalid, "URL does not start with http:// or https://"};
  rest.remove_prefix(url.scheme.size() + 1);
  if (!rest.starts_with("//")) return Error{Errc::invalid, "URL has no host"};
  rest.remove_prefix(2);
  rest = rest.substr(0, rest.find('#'));
  const size_t authority_length = std::min(rest.find_first_of("/?"), rest.size());
  CAKE_TRY(set_authority(url, rest.substr(0, authority_length)));
  set_path_and_query(url, rest.substr(authority_length));
  if (url.path.empty()) url.path = "/";
  return url;
}

Result<Url> Url::resolve(std::string_view reference) const {
  if (scheme_length(reference) > 0) return parse(reference);
  if (reference.starts_with("//")) return parse(scheme + ":" + std::string(reference));
  const std::string clean = CAKE_TRY(cleaned(reference));
  const std::string_view rest = std::string_view(clean).substr(0, clean.find('#'));
  Url url = *this;
  if (rest.empty()) return url;
  if (rest[0] == '?') {
    url.query.assign(rest.substr(1));
    return url;
  }
  set_path_and_query(url, rest);
  if (url.path[0] != '/') url.path = path.substr(0, path.rfind('/') + 1) + url.path;
  url.path = without_dots(url.path);
  return url;
}

std::string Url::redacted() const {
  const bool is_default_port = port == (scheme == "https" ? 443 : 80);
  std::string text = scheme + "://" + host;
  if (!is_default_port) text += ":" + std::to_string(port);
  return text + path;
}

std::string Url::str() const {
  return query.empty() ? redacted() : redacted() + "?" + query;
}

bool Url::is_of(const Url& other) const {
  const bool is_upgraded = other.scheme == "http" && other.port == 80 && scheme == "https" &&
                           port == 443 && host == other.host;
  return is_upgraded || same_origin(other);
}

bool Url::same_origin(const Url& other) const {
  return scheme == other.scheme && host == other.host && port == other.port;
}

std::optional<std::string> Url::find_query(std::string_view name) const {
  std::string_view rest = query;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('&'), rest.size());
    const std::string_view pair = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (pair.size() <= name.size() || !pair.starts_with(name) || pair[name.size()] != '=') continue;
    std::string value;
    for (size_t i = name.size() + 1; i < pair.size(); i++) {
      const bool is_escape = pair[i] == '%' && i + 2 < pair.size() && hex_value(pair[i + 1]) >= 0 &&
                             hex_value(pair[i + 2]) >= 0;
      if (is_escape) {
        value += static_cast<char>(hex_value(pair[i + 1]) * 16 + hex_value(pair[i + 2]));
        i += 2;
      } else {
        value += pair[i];
      }
    }
    return value;
  }
  return std::nullopt;
}

Result<Url> parse_endpoint(std::string_view text) {
  Url url = CAKE_TRY(Url::parse(text));
  if (!url.query.empty()) return Error{Errc::invalid, "endpoint has a query"};
  while (url.path.ends_with('/')) url.path.pop_back();
  return url;
}

std::string encode_segment(std::string_view text) {
  return encode(text, false);
}

std::string encode_path(std::string_view text) {
  return encode(text, true);
}

}  // namespace cake
