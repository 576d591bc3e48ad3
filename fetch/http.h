// HTTP/1.1 and HTTP/2 by libcurl's multi interface, for many requests on few threads.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/metrics.h"
#include "store/base/result.h"

namespace cake {

struct HttpOptions {
  unsigned threads = 0;     // 0: one, plus one for every 8 cores
  unsigned max_conns = 64;  // open connections in all, `max_conns`
  std::string proxy;  // empty: http_proxy, https_proxy, all_proxy, no_proxy of the environment
  std::string
      ca_file;  // empty: SSL_CERT_FILE, CURL_CA_BUNDLE, REQUESTS_CA_BUNDLE, else the system's
  std::string user_agent;
  Millis connect_timeout{10'000};
  // A transfer that moves fewer than low_speed_bytes in a second for this long is cut:
  // Errc::timeout.  So is one that is not answered for this long, or, when it was asked before
  // without an answer, up to three times as long (head_patience.h).
  Millis stall_timeout{10'000};
  uint64_t low_speed_bytes = 1'024;
};

struct HttpHeader {
  std::string name;  // lower case
  std::string value;
};

struct HttpResponseHead {
  int status = 0;
  std::vector<HttpHeader> headers;
  std::string_view find(std::string_view lower_case_name) const;  // first value, or empty
  bool is_redirect() const;
};

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<HttpHeader> headers;  // Accept-Encoding: identity is added
  std::optional<ByteRange> range;   // sent as Range: bytes=a-b
  bool is_demand = true;            // false: starts only when no demand waits for a connection
  Deadline deadline = Deadline::never();
};

// Handlers run on an HTTP thread, in order, and must not block.
struct HttpHandlers {
  // After the final response head (no 1xx).  False ends the transfer (then on_done with cancelled).
  std::function<bool(const HttpResponseHead&)> on_head;
  // Body bytes as they come.  False ends the transfer.
  std::function<bool(ByteSpan)> on_body;
  // Last call, exactly once.  Ok: the response arrived whole, whatever its status.  Errors: timeout
  // (deadline, stall, connect), offline (DNS, refused, no route, proxy down), denied (a certificate
  // that is not trusted, a proxy that wants a password), upstream (protocol, handshake, cut body),
  // cancelled.
  std::function<void(Status)> on_done;
};

// Whoever follows redirects gives up after so many.
constexpr unsigned kMaxRedirects = 8;

// Redirects are never followed here: who asks decides where a token may go.  Only http and https.
// Thread-safe.
class HttpClient {
 public:
  HttpClient(HttpOptions options, Metrics& metrics);
  ~HttpClient();  // stops
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  void start(HttpRequest request, HttpHandlers handlers);
  // Runs `task` on an HTTP thread after `delay` (dropped once stopping).
  void after(Millis delay, std::function<void()> task);
  // Ends what is under way with Errc::cancelled, then joins: nothing is called back after this,
  // and what is started later ends at once.  By the owner; may be called again.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Whole small answer, for metadata.  `limit_bytes` bounds the body (more: Errc::corrupt, for the
// next answer would be as large).
struct HttpAnswer {
  HttpResponseHead head;
  std::string body;
};
void http_get(HttpClient& http, HttpRequest request, uint64_t limit_bytes,
              std::function<void(Result<HttpAnswer>)> done);

}  // namespace cake
