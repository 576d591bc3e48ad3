// HTTP/1.1 for those who serve: `cake serve` and the test hub.
//
// A few threads carry any number of connections: an answer that is not ready yet, and a body that
// must wait, are kept as data.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fetch/http.h"
#include "fetch/http_values.h"
#include "store/base/bytes.h"
#include "store/base/clock.h"
#include "store/base/file.h"
#include "store/base/result.h"

namespace cake {

struct HttpServerOptions {
  std::string listen = "127.0.0.1:0";  // HOST:PORT, [V6]:PORT or :PORT (every address); port 0: any
  unsigned threads = 2;
  unsigned max_conns = 1024;
  unsigned max_conns_per_ip = 0;  // 0: no limit
  // From being ready for a request to having all of it: idle keep-alive connections and clients
  // that send a byte now and then are closed alike.
  Millis request_timeout{60'000};
  Millis send_timeout{60'000};  // a peer that takes no byte of the answer; whole seconds
  // PEM, both or neither: https.  The key may follow its chain of certificates.
  std::string tls_certificate, tls_key;
  size_t max_header_bytes = 32 * kKiB;
  size_t max_body_bytes = 1 * kMiB;  // of a request; more: 413, or closed when not announced
};

struct HttpServerRequest {
  std::string method;
  std::string path;                 // as sent: percent-encoding untouched
  std::string query;                // what follows '?', as sent
  std::vector<HttpHeader> headers;  // names in lower case
  std::string body;
  std::string peer;                                          // address without port
  std::string_view find(std::string_view lower_name) const;  // first value, or empty
};

// What a body that is made as it is sent does next.
struct BodyStep {
  enum class Kind {
    bytes,  // `count` bytes were written (0: the end)
    wait,   // ask again at `until`, or after HttpServer::wake
    cut,    // close the connection in the middle
    reset,  // the same with a TCP reset
  };
  Kind kind = Kind::bytes;
  size_t count = 0;
  SteadyTime until = SteadyTime::max();
};
// `offset` counts from the start of the body.  Runs on a server thread and must not block.
using BodySource = std::function<BodyStep(uint64_t offset, MutableByteSpan out)>;

struct FileBody {
  File file;
  ByteRange range;  // lies within the file
};
struct StreamBody {
  BodySource source;
  std::optional<uint64_t> bytes;  // nullopt: chunked
};
using HttpBody = std::variant<std::string, FileBody, StreamBody>;
uint64_t body_bytes(const HttpBody& body);  // 0 when not known

struct HttpServerResponse {
  int status = 200;
  std::vector<HttpHeader> headers;  // sent as written; Content-Length and Date are added
  HttpBody body;
};

// The right to answer one request, from any thread, now or later.  Copies share it.  Thread-safe.
class HttpResponder {
 public:
  // The first call counts.
  void send(HttpServerResponse response) const;
  // Closes the connection without an answer.
  void drop(bool reset) const;
  // HttpServer::after, for who answers later.
  void after(Millis delay, std::function<void()> task) const;

 private:
  friend class HttpServer;
  struct Ticket;
  explicit HttpResponder(std::shared_ptr<Ticket> ticket) : ticket_(std::move(ticket)) {}
  std::shared_ptr<Ticket> ticket_;  // its end without an answer is a 500
};

// Thread-safe.
class HttpServer {
 public:
  // Runs on a server thread and must not block.
  using Handler = std::function<void(const HttpServerRequest&, HttpResponder)>;

  // Errors: invalid      the address does not parse or resolve; the certificate is refused
  //         io           it cannot be bound
  //         unsupported  TLS is asked of a library without it
  static Result<std::unique_ptr<HttpServer>> start(HttpServerOptions options, Handler handler);
  // Cuts what is under way.  Responders may outlive the server; they then do nothing.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;
  std::string address() const;  // "127.0.0.1:8080", "[::1]:8080"
  // Asks every waiting body again.
  void wake();
  // Runs `task` on the server's timer thread; not after destruction began.
  void after(Millis delay, std::function<void()> task);
  uint64_t accepted() const;  // connections since the start
  unsigned open_connections() const;

 private:
  friend class HttpResponder;
  struct Core;
  explicit HttpServer(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  std::shared_ptr<Core> core_;
};

}  // namespace cake
