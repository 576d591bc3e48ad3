#include "tests/support/http_ask.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <future>

namespace cake {

namespace {
constexpr Millis kPatience{20'000};

HttpOptions options() {
  HttpOptions out;
  out.threads = 1;
  out.user_agent = "cake-test";
  return out;
}
}  // namespace

Asker::Asker() : http(options(), metrics) {}

Result<HttpAnswer> Asker::get(const std::string& url, std::vector<HttpHeader> headers,
                              const std::string& method) {
  HttpRequest request;
  request.method = method;
  request.url = url;
  request.headers = std::move(headers);
  request.deadline = Deadline::after(kPatience);
  auto promise = std::make_shared<std::promise<Result<HttpAnswer>>>();
  auto future = promise->get_future();
  http_get(http, std::move(request), 64 * kMiB,
           [promise](Result<HttpAnswer> answer) { promise->set_value(std::move(answer)); });
  return future.get();
}

int Asker::status(const std::string& url, std::vector<HttpHeader> headers) {
  const auto answer = get(url, std::move(headers));
  return answer ? answer->head.status : -1;
}

RawConnection::RawConnection(uint16_t port)
    : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CAKE_CHECK(fd_ >= 0 &&
             ::connect(fd_, reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0);
}

RawConnection::~RawConnection() {
  ::close(fd_);
}

bool RawConnection::send(std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    text.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string RawConnection::read_until(std::string_view needle) {
  std::string out;
  std::array<char, 65536> block;
  while (needle.empty() || out.find(needle) == std::string::npos) {
    pollfd ready{fd_, POLLIN, 0};
    if (::poll(&ready, 1, static_cast<int>(kPatience.count())) <= 0) break;
    const ssize_t got = ::recv(fd_, block.data(), block.size(), 0);
    if (got <= 0) break;
    out.append(block.data(), static_cast<size_t>(got));
  }
  return out;
}

bool RawConnection::is_closed_by_peer() {
  const SteadyTime late = steady_now() + kPatience;
  std::array<char, 65536> block;
  while (steady_now() < late) {
    pollfd ready{fd_, POLLIN, 0};
    if (::poll(&ready, 1, 100) <= 0) continue;
    if (::recv(fd_, block.data(), block.size(), 0) <= 0) return true;
  }
  return false;
}

}  // namespace cake
