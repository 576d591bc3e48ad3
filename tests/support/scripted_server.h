// A server that says exactly what a test tells it to, true HTTP or not: for answers that a decent
// server never gives.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "store/base/clock.h"
#include "store/base/mutex.h"

namespace cake {

struct ScriptedRequest {
  std::string method;
  std::string target;  // as sent: path and query
  std::string head;    // all of it, lower-case names not guaranteed
  // The value of a header, by any case; empty when absent.
  std::string header(std::string_view name) const;
};

struct ScriptedReply {
  // What happens to the connection after `bytes`.
  enum class Then {
    keep,   // waits for the next request
    close,  // ends it in order
    reset,  // ends it by RST
    stall,  // keeps it open and silent for as long as the server lives
  };
  std::string bytes;
  Then then = Then::keep;
};

// A well-formed response with Content-Length.  `headers` are whole lines, each ended by "\r\n".
ScriptedReply response(int status, std::string_view headers, std::string_view body);
// A true 206 for the request's Range of `file`.
ScriptedReply range_response(const ScriptedRequest& request, std::string_view file,
                             std::string_view headers = "");

// Listens on a free port of 127.0.0.1, without TLS; a thread per connection; `script` runs on any
// of them.
class ScriptedServer {
 public:
  using Script = std::function<ScriptedReply(const ScriptedRequest&)>;
  explicit ScriptedServer(Script script);
  // Ends all connections, then joins.
  ~ScriptedServer();
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  // "http://127.0.0.1:PORT" + `target`.
  std::string url(std::string_view target = "") const;

  std::vector<ScriptedRequest> requests() const EXCLUDES(mutex_);
  // Requests whose target starts so.
  size_t count(std::string_view target_prefix) const EXCLUDES(mutex_);
  // Waits until so many requests have come.  False after 10 s.
  bool wait_for_requests(size_t count) EXCLUDES(mutex_);
  size_t connections() const EXCLUDES(mutex_);

 private:
  void accept_all() EXCLUDES(mutex_);
  void serve(int socket) EXCLUDES(mutex_);
  // False when the peer or the server ends first.
  bool wait_readable(int socket) const;

  // Constant after construction.
  const Script script_;
  int listener_ = -1;
  int stop_read_ = -1, stop_write_ = -1;  // readable once the server ends
  uint16_t port_ = 0;

  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  CondVar arrived_;
  std::vector<ScriptedRequest> requests_ GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ GUARDED_BY(mutex_);

  std::thread acceptor_;
};

}  // namespace cake
