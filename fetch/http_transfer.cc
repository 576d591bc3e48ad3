#include "fetch/http_transfer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace cake {
namespace {

constexpr size_t kMaxHeaderBytes = 256 * kKiB;
constexpr size_t kMaxHeaders = 1'000;
constexpr long kReceiveBufferBytes = 512 * 1024;  // libcurl's largest

// What the proxy of a tunnel answers to who must say who they are (RFC 9110, 15.5.8).
constexpr long kProxyAuthentication = 407;

// Each says what an operator can do.  denied: asking again gets the same answer.
Error curl_error(CURLcode code, const char* detail, long proxy_status) {
  const std::string text = detail[0] != '\0' ? detail : curl_easy_strerror(code);
  if (proxy_status == kProxyAuthentication)
    return Error{Errc::denied, "the proxy wants a name and password: put them into its URL"};
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
      return Error{Errc::denied,
                   text +
                       "; the server's certificate is not trusted: name its CA with cafile= or "
                       "SSL_CERT_FILE, or correct the endpoint"};
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return Error{Errc::denied, text + "; correct cafile= or SSL_CERT_FILE"};
    case CURLE_OPERATION_TIMEDOUT:
      return Error{Errc::timeout, text};
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_INTERFACE_FAILED:
    case CURLE_PROXY:
      return Error{Errc::offline, text + "; check network, name service, proxy and endpoint"};
    case CURLE_OUT_OF_MEMORY:
      // What libcurl calls a line that is longer than it takes (100 KiB).
      return Error{Errc::upstream, text + ": a line of the response head may be too long"};
    default:
      return Error{Errc::upstream, text};
  }
}

// A dead peer is noticed by the kernel too, so that later streams do not land on its connection.
int set_socket_options(void* user, curl_socket_t socket, curlsocktype) {
  const auto timeout_ms = static_cast<unsigned>(*static_cast<const long*>(user));
  (void)setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
  return CURL_SOCKOPT_OK;  // a kernel without the option still works
}

template <typename Deleter>
void append_header(std::unique_ptr<curl_slist, Deleter>& list, const std::string& name,
                   const std::string& value) {
  // curl's spelling of an empty value is "Name;".
  const std::string line = value.empty() ? name + ";" : name + ": " + value;
  curl_slist* longer = curl_slist_append(list.get(), line.c_str());
  CAKE_CHECK(longer != nullptr);
  (void)list.release();
  list.reset(longer);
}

}  // namespace

HttpTransfer::HttpTransfer(HttpPending pending, const HttpSettings& settings,
                           HttpCounters& counters)
    : easy_(curl_easy_init()), pending_(std::move(pending)), counters_(counters) {
  CAKE_CHECK(easy_ != nullptr);
  set_basics(settings);
  set_request(settings);
  set_callbacks();
  second_began_ = busy_at_ = steady_now();
}

Status HttpTransfer::check(const HttpOptions& options) {
  if (Status over = pending_.request.deadline.check(); !over)
    return over.error().code == Errc::timeout ? Error{Errc::timeout, waits_for()} : over;
  const SteadyTime now = steady_now();
  const Millis patience = is_head_done_ ? options.stall_timeout : head_patience_;
  if (now - second_began_ < Millis(1'000) && now - busy_at_ < patience) return {};
  // Until there is a connection, its own timeout counts.
  curl_off_t ready_us = 0;
  curl_easy_getinfo(easy_.get(), CURLINFO_PRETRANSFER_TIME_T, &ready_us);
  if (ready_us == 0 || second_bytes_ >= std::max<uint64_t>(options.low_speed_bytes, 1))
    busy_at_ = now;
  second_began_ = now;
  second_bytes_ = 0;
  if (now - busy_at_ < patience) return {};
  is_silent_ = !is_head_done_;
  curl_easy_setopt(easy_.get(), CURLOPT_FORBID_REUSE, 1L);
  return Error{Errc::timeout, waits_for()};
}

std::optional<Millis> HttpTransfer::head_time() const {
  if (!is_head_done_) return std::nullopt;
  curl_off_t sent_us = 0, head_us = 0;
  curl_easy_getinfo(easy_.get(), CURLINFO_PRETRANSFER_TIME_T, &sent_us);
  curl_easy_getinfo(easy_.get(), CURLINFO_STARTTRANSFER_TIME_T, &head_us);
  return std::chrono::duration_cast<Millis>(std::chrono::microseconds(head_us - sent_us));
}

Status HttpTransfer::status_of(CURLcode code) const {
  if (is_too_large_) return Error{Errc::upstream, "response head is too large"};
  if (is_ended_) return Error{Errc::cancelled, "ended by the reader"};
  if (code != CURLE_OK) {
    long proxy_status = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_HTTP_CONNECTCODE, &proxy_status);
    return curl_error(code, error_text_.data(), proxy_status);
  }
  if (!is_head_done_) return Error{Errc::upstream, "response without a head"};
  return {};
}

template <typename Value>
void HttpTransfer::set(CURLoption option, Value value) {
  const CURLcode code = curl_easy_setopt(easy_.get(), option, value);
  // An option that this libcurl lacks would be silently without effect: TLS checks among them.
  CAKE_CHECK(code == CURLE_OK);
}

// What has not happened in time.
std::string HttpTransfer::waits_for() {
  curl_off_t resolved_us = 0, connected_us = 0;
  curl_easy_getinfo(easy_.get(), CURLINFO_NAMELOOKUP_TIME_T, &resolved_us);
  curl_easy_getinfo(easy_.get(), CURLINFO_PRETRANSFER_TIME_T, &connected_us);
  if (is_head_done_) return "the server did not send all of it in time";
  if (connected_us != 0) return "the server does not answer";
  if (resolved_us != 0) return "no connection in time; check network, proxy and endpoint";
  return "the name of the host is not found in time; check the name service";
}

void HttpTransfer::set_basics(const HttpSettings& settings) {
  set(CURLOPT_NOSIGNAL, 1L);
  // Else a request given up while its host's name is looked up would hold this thread, and all
  // its transfers, until the resolver has done with a name server that does not answer.
  set(CURLOPT_QUICK_EXIT, 1L);
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_TCP_NODELAY, 1L);
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_BUFFERSIZE, kReceiveBufferBytes);
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(settings.options.connect_timeout.count()));
  set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  set(CURLOPT_SOCKOPTFUNCTION, &set_socket_options);
  set(CURLOPT_SOCKOPTDATA, const_cast<long*>(&settings.user_timeout_ms));
  set(CURLOPT_ERRORBUFFER, error_text_.data());
  if (!settings.options.user_agent.empty())
    set(CURLOPT_USERAGENT, settings.options.user_agent.c_str());
  if (settings.ca_file.empty()) return;
  // curl's own CA file stays in force beside a CAPATH unless it is taken away.
  std::error_code ignored;
  const bool is_directory = std::filesystem::is_directory(settings.ca_file, ignored);
  set(CURLOPT_CAINFO, is_directory ? nullptr : settings.ca_file.c_str());
  set(CURLOPT_CAPATH, is_directory ? settings.ca_file.c_str() : nullptr);
}

void HttpTransfer::set_request(const HttpSettings& settings) {
  const HttpRequest& request = pending_.request;
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PATH_AS_IS, 1L);
  set(CURLOPT_STREAM_WEIGHT, request.is_demand ? 256L : 16L);
  if (request.method == "HEAD") {
    set(CURLOPT_NOBODY, 1L);
  } else if (request.method != "GET") {
    set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  if (!settings.options.proxy.empty()) {
    set(CURLOPT_PROXY, settings.options.proxy.c_str());
    set(CURLOPT_NOPROXY, "");  // the environment's goes with the environment's proxy
  } else if (!settings.http_proxy.empty() && request.url.starts_with("http:")) {
    set(CURLOPT_PROXY, settings.http_proxy.c_str());
  }
  for (const HttpHeader& header : request.headers)
    append_header(headers_, header.name, header.value);
  append_header(headers_, "Accept-Encoding", "identity");
  if (request.range && request.range->length > 0)
    append_header(headers_, "Range",
                  cat("bytes=", request.range->offset, '-', request.range->end() - 1));
  set(CURLOPT_HTTPHEADER, headers_.get());
}

void HttpTransfer::set_callbacks() {
  set(CURLOPT_PRIVATE, static_cast<void*>(this));
  set(CURLOPT_HEADERFUNCTION, &HttpTransfer::header_callback);
  set(CURLOPT_HEADERDATA, static_cast<void*>(this));
  set(CURLOPT_WRITEFUNCTION, &HttpTransfer::body_callback);
  set(CURLOPT_WRITEDATA, static_cast<void*>(this));
}

size_t HttpTransfer::header_callback(char* data, size_t size, size_t count, void* user) {
  const size_t bytes = size * count;
  const bool goes_on = static_cast<HttpTransfer*>(user)->on_header_line({data, bytes});
  return goes_on ? bytes : 0;
}

size_t HttpTransfer::body_callback(char* data, size_t size, size_t count, void* user) {
  const size_t bytes = size * count;
  auto& self = *static_cast<HttpTransfer*>(user);
  self.counters_.bytes_received.add(bytes);
  self.second_bytes_ += bytes;
  const HttpHandlers& handlers = self.pending_.handlers;
  if (!handlers.on_body || handlers.on_body(as_bytes({data, bytes}))) return bytes;
  self.is_ended_ = true;
  // Not 0: for an empty piece that would mean success.
  return bytes + 1;
}

bool HttpTransfer::on_header_line(std::string_view line) {
  second_bytes_ += line.size();
  if (is_head_done_) return true;  // trailers
  head_bytes_ += line.size();
  is_too_large_ = head_bytes_ > kMaxHeaderBytes || head_.headers.size() > kMaxHeaders;
  if (is_too_large_) return false;
  if (line.starts_with("HTTP/")) {
    head_ = {};
    return true;
  }
  const std::string_view text = trimmed(line);
  if (text.empty()) return on_head_end();
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return true;
  HttpHeader header{std::string(text.substr(0, colon)),
                    std::string(trimmed(text.substr(colon + 1)))};
  for (char& letter : header.name)
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  head_.headers.push_back(std::move(header));
  return true;
}

bool HttpTransfer::on_head_end() {
  long status = 0;
  curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
  head_.status = static_cast<int>(status);
  if (status < 200) return true;  // 1xx: the real head follows
  is_head_done_ = true;
  if (!pending_.handlers.on_head || pending_.handlers.on_head(head_)) return true;
  is_ended_ = true;
  return false;
}

}  // namespace cake
