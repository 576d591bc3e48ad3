#include "fetch/hub_files.h"

#include "fetch/url.h"
#include "store/base/log.h"

namespace cake {

namespace {

bool is_known_etag(std::string_view header, const std::string& etag) {
  if (header == "*") return true;
  while (!header.empty()) {
    const size_t comma = header.find(',');
    std::string_view one = header.substr(0, comma);
    header = comma == std::string_view::npos ? std::string_view() : header.substr(comma + 1);
    const auto is_blank = [](char letter) { return letter == ' ' || letter == '\t'; };
    while (!one.empty() && is_blank(one.front())) one.remove_prefix(1);
    while (!one.empty() && is_blank(one.back())) one.remove_suffix(1);
    if (one.starts_with("W/")) one.remove_prefix(2);
    if (one == etag) return true;
  }
  return false;
}

// What a request asks of a file: an answer without bytes, or a range of it.
struct Asked {
  std::optional<HttpServerResponse> answer;  // 304, 416
  ByteRange range;
  bool is_part = false;
};

Asked ask(const HttpServerRequest& request, uint64_t bytes, const std::string& etag,
          std::vector<HttpHeader>& headers) {
  Asked asked;
  asked.range = {0, bytes};
  headers.push_back({"ETag", etag});
  headers.push_back({"Accept-Ranges", "bytes"});
  if (is_known_etag(request.find("if-none-match"), etag)) {
    asked.answer = HttpServerResponse{.status = 304, .headers = headers, .body = ""};
    return asked;
  }
  // If-Range with another validator asks for the whole (RFC 9110, 13.1.5).
  const std::string_view condition = request.find("if-range");
  const bool is_other = !condition.empty() && condition != etag;
  const auto range =
      parse_range_header(is_other ? std::string_view() : request.find("range"), bytes);
  if (!range && bytes > 0) {
    headers.push_back({"Content-Range", cat("bytes */", bytes)});
    asked.answer = HttpServerResponse{.status = 416, .headers = headers, .body = ""};
    return asked;
  }
  if (range && *range) {
    asked.range = **range;
    asked.is_part = true;
    headers.push_back({"Content-Range",
                       cat("bytes ", asked.range.offset, '-', asked.range.end() - 1, '/', bytes)});
  }
  return asked;
}

}  // namespace

std::string hub_etag(const TreeEntry& entry) {
  return cat('"', entry.ids.sha256.empty() ? entry.ids.git_oid : entry.ids.sha256, '"');
}

HttpServerResponse hub_file_response(const HttpServerRequest& request, const HubFile& file,
                                     const std::string& etag, std::vector<HttpHeader> headers) {
  Asked asked = ask(request, file.entry.bytes, etag, headers);
  if (asked.answer) return std::move(*asked.answer);
  auto body = file.open(asked.range);
  if (!body) {
    log_warn("hub: " + body.error().message);
    return hub_failure(body.error());
  }
  return {
      .status = asked.is_part ? 206 : 200, .headers = std::move(headers), .body = std::move(*body)};
}

void answer_hub_file(const HttpServerRequest& request, const HubFile& file, const std::string& etag,
                     std::vector<HttpHeader> headers,
                     const std::function<void(HttpServerResponse)>& reply) {
  // For HEAD nothing is fetched: the sizes are known.
  if (!file.open_later || request.method == "HEAD") {
    reply(hub_file_response(request, file, etag, std::move(headers)));
    return;
  }
  Asked asked = ask(request, file.entry.bytes, etag, headers);
  if (asked.answer) {
    reply(std::move(*asked.answer));
    return;
  }
  file.open_later(asked.range, [reply, headers = std::move(headers),
                                is_part = asked.is_part](Result<HttpBody> body) {
    if (!body)
      reply(hub_failure(body.error()));
    else
      reply({.status = is_part ? 206 : 200, .headers = headers, .body = std::move(*body)});
  });
}

HttpServerResponse hub_failure(const Error& error) {
  const auto answer = [&](int status, std::vector<HttpHeader> headers, std::string text) {
    headers.push_back({"X-Error-Message", text});
    headers.push_back({"Content-Type", "text/plain; charset=utf-8"});
    headers.push_back({"Cache-Control", "no-store"});
    return HttpServerResponse{
        .status = status, .headers = std::move(headers), .body = std::move(text)};
  };
  switch (error.code) {
    case Errc::denied:
      return answer(403, {{"X-Error-Code", "GatedRepo"}},
                    "Access is restricted: the mirror's own token does not open this repo.");
    case Errc::not_found:
      return answer(404, {}, "The hub no longer has this file.");
    case Errc::corrupt:
      return answer(410, {}, "The file changed on the server since this commit.");
    case Errc::offline:
    case Errc::timeout:
    case Errc::rate_limited:
    case Errc::cancelled:
      return answer(503, {{"Retry-After", "5"}}, "The hub behind this mirror does not answer.");
    default:
      return answer(502, {}, "The content cannot be read; the server's log says why.");
  }
}

std::string hub_disposition(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  std::string plain;
  for (const char letter : name)
    plain +=
        letter == '"' || letter == '\\' || static_cast<signed char>(letter) < 32 ? '_' : letter;
  return cat("inline; filename*=UTF-8''", encode_segment(name), "; filename=\"", plain, "\";");
}

HttpHeader hub_cache_control(bool is_fixed, bool is_private) {
  if (!is_fixed) return {"Cache-Control", "no-cache"};
  return {"Cache-Control", cat(is_private ? "private" : "public", ", max-age=31536000, immutable")};
}

}  // namespace cake
