// Answers that carry a file's bytes: Range, ETag, and what caches in front may keep.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fetch/http_server.h"
#include "fetch/hub_content.h"

namespace cake {

// Quoted: sha256 of an LFS file, git blob id of another.
std::string hub_etag(const TreeEntry& entry);

// A file's bytes under the request's Range: 200, 206, 416 or, for a known ETag, 304.
HttpServerResponse hub_file_response(const HttpServerRequest& request, const HubFile& file,
                                     const std::string& etag, std::vector<HttpHeader> headers);
// The same for files that are opened later; `reply` is called once, perhaps on another thread.
void answer_hub_file(const HttpServerRequest& request, const HubFile& file, const std::string& etag,
                     std::vector<HttpHeader> headers,
                     const std::function<void(HttpServerResponse)>& reply);

// Status for an error of the content's: what the client may do about it.
HttpServerResponse hub_failure(const Error& error);

// "inline; filename…" with a name that may hold anything.
std::string hub_disposition(const std::string& path);
// Who may keep an answer, and how long: one that can never change for a year, by everybody, or,
// when a token is needed to see it, by the client alone.  Others are asked for again.
HttpHeader hub_cache_control(bool is_fixed, bool is_private);

}  // namespace cake
