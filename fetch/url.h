// URLs of hubs and of what they point to.  Every URL that came over the network is hostile.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/base/result.h"

namespace cake {

// An absolute http or https URL in the one form that requests are made from: scheme and host in
// lower case, no user information, no fragment, nothing that a server and we could read
// differently.  Thread-compatible.
struct Url {
  std::string scheme;  // "http" or "https"
  std::string host;    // IPv6 addresses keep their brackets
  uint16_t port = 0;   // never 0 after parse: the scheme's own when the text has none
  std::string path;    // percent-encoded as given; starts with "/"
  std::string query;   // without "?"

  // Spaces and bytes beyond ASCII, which some servers leave in Location, are percent-encoded.
  // Errors: invalid, with a message that does not repeat the text: another scheme, user:password,
  // control characters, backslashes, a bad host or port, more than 16 KiB.
  static Result<Url> parse(std::string_view text);

  // What `reference` (a Location or Link target, relative or not) means on a page at this URL
  // (RFC 3986, 5.2).  Errors: invalid.
  Result<Url> resolve(std::string_view reference) const;

  std::string str() const;
  // For logs and errors: without the query, where signatures are.
  std::string redacted() const;
  // Whether the token of one may be sent to the other: scheme, host and port are equal.
  bool same_origin(const Url& other) const;
  // So too when `other`, plain http on its own port, has sent its clients on to https.
  bool is_of(const Url& other) const;
  // The value of the first query parameter of that name, percent-decoded.
  std::optional<std::string> find_query(std::string_view name) const;

  bool operator==(const Url&) const = default;
};

// The base of a hub, as HF_ENDPOINT gives it: trailing slashes dropped (`path` may become empty),
// no query.  Errors: invalid.
Result<Url> parse_endpoint(std::string_view text);

// Everything outside RFC 3986's unreserved characters becomes %XX; encode_path keeps "/".
// A revision is one segment: refs/pr/7 becomes refs%2Fpr%2F7.
std::string encode_segment(std::string_view text);
std::string encode_path(std::string_view text);

}  // namespace cake
