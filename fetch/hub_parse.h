// What a hub's answers say.  Pure: no I/O; every input is hostile.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/http.h"
#include "fetch/upstream.h"
#include "fetch/url.h"
#include "store/base/result.h"

namespace cake {

// Errors of all three: upstream, when the JSON or the type of a needed field is wrong.
Result<RevisionInfo> parse_revision_info(std::string_view json);
// Files only; a hash that is not hexadecimal (masked for those without access) is left empty.
// Appends to `entries`.
Status parse_tree_page(std::string_view json, std::vector<TreeEntry>& entries);
// Appends the ids.
Status parse_repo_page(std::string_view json, std::vector<std::string>& ids);

// The target of `Link: <URL>; rel="next"` among any other links, as written.
std::optional<std::string> find_next_link(const HttpResponseHead& head);

// "bytes 5-9/100", or "bytes 5-9/*" from who does not know the whole.  nullopt for anything else.
struct ContentRange {
  ByteRange range;
  std::optional<uint64_t> total_bytes;
};
std::optional<ContentRange> parse_content_range(std::string_view text);

// Decimal digits only.
std::optional<uint64_t> parse_u64(std::string_view text);

// Without W/ and quotes.
std::string_view bare_etag(std::string_view etag);

// How long a signed URL may still be used, by its Expires or X-Amz-Date and X-Amz-Expires
// parameters, less a minute (or half of a short life); 15 minutes when it does not say.  `now` is
// best the server's own Date, as our clock may be wrong.  At most an hour: who moved the file
// tells us by a new redirect.
Millis signed_url_life(const Url& url, int64_t now);

// The machine form of a failure: status, X-Error-Code, X-Error-Message (else the body's).
struct HubFailure {
  int status = 0;
  std::string code;
  std::string message;   // printable, at most 300 bytes
  bool is_page = false;  // for people, and without anything that hubs say
};
HubFailure parse_failure(const HttpResponseHead& head, std::string_view body);

// What was asked, for the error's text.
struct HubQuestion {
  std::string what;       // "org/name at main", "org/name/config.json"
  std::string repo_page;  // where a browser asks for access
  std::string token;      // what was sent, if any; cut out of the message
  // A mirror may not serve it: 404 without a code, 405 and 501 are unsupported.
  bool is_optional = false;
};
// The failure as an Error.  A 404 without a code is upstream, not not_found: a proxy may have made
// it, and absence is remembered.
Error failure_error(const HubFailure& failure, const HubQuestion& question);

}  // namespace cake
