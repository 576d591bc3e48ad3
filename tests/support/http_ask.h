// Asking a server in a test, as a client that waits.
#pragma once

#include <string>
#include <vector>

#include "fetch/http.h"

namespace cake {

// One client for the test's life; redirects are not followed.
class Asker {
 public:
  Asker();
  // Up to 64 MiB of body.  The deadline is 20 s.
  Result<HttpAnswer> get(const std::string& url, std::vector<HttpHeader> headers = {},
                         const std::string& method = "GET");
  // A status that cannot be, when there is no answer: for comparisons.
  int status(const std::string& url, std::vector<HttpHeader> headers = {});

  Metrics metrics;
  HttpClient http;
};

// A TCP connection of one's own, for what a proper client would not do.
class RawConnection {
 public:
  explicit RawConnection(uint16_t port);
  ~RawConnection();
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;
  // False when the peer has closed.
  bool send(std::string_view text);
  // What comes until the peer closes, or until `needle` was seen; gives up after 20 s.
  std::string read_until(std::string_view needle);
  // Whether the peer closes within 20 s.
  bool is_closed_by_peer();

 private:
  int fd_ = -1;
};

}  // namespace cake
