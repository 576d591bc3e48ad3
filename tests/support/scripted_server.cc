#include "tests/support/scripted_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "store/base/bytes.h"
#include "store/base/result.h"

namespace cake {
namespace {

ScriptedRequest parse(std::string head) {
  ScriptedRequest request;
  const size_t first = head.find(' ');
  const size_t second = head.find(' ', first + 1);
  request.method = head.substr(0, first);
  request.target = head.substr(first + 1, second - first - 1);
  request.head = std::move(head);
  return request;
}

}  // namespace

std::string ScriptedRequest::header(std::string_view name) const {
  size_t at = head.find("\r\n");
  while (at != std::string::npos && at + 2 < head.size()) {
    const size_t start = at + 2;
    at = head.find("\r\n", start);
    const std::string line = head.substr(start, at - start);
    if (line.size() > name.size() && line[name.size()] == ':' &&
        strncasecmp(line.data(), name.data(), name.size()) == 0) {
      const size_t value = line.find_first_not_of(' ', name.size() + 1);
      return value == std::string::npos ? "" : line.substr(value);
    }
  }
  return "";
}

ScriptedReply response(int status, std::string_view headers, std::string_view body) {
  return {cat("HTTP/1.1 ", status, " Scripted\r\nContent-Length: ", body.size(), "\r\n", headers,
              "\r\n", body)};
}

ScriptedReply range_response(const ScriptedRequest& request, std::string_view file,
                             std::string_view headers) {
  unsigned long long first = 0, last = 0;
  if (std::sscanf(request.header("Range").c_str(), "bytes=%llu-%llu", &first, &last) != 2)
    return response(400, "", "no range");
  const std::string_view body = file.substr(first, last - first + 1);
  return response(206,
                  cat("Content-Range: bytes ", first, "-", first + body.size() - 1, "/",
                      file.size(), "\r\n", headers),
                  body);
}

ScriptedServer::ScriptedServer(Script script) : script_(std::move(script)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CAKE_CHECK(listener_ >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof address;
  CAKE_CHECK(::bind(listener_, generic, length) == 0);
  CAKE_CHECK(::listen(listener_, 128) == 0);
  CAKE_CHECK(::getsockname(listener_, generic, &length) == 0);
  port_ = ntohs(address.sin_port);
  std::array<int, 2> pipe{};
  CAKE_CHECK(::pipe2(pipe.data(), O_CLOEXEC) == 0);
  stop_read_ = pipe[0];
  stop_write_ = pipe[1];
  acceptor_ = std::thread([this] { accept_all(); });
}

ScriptedServer::~ScriptedServer() {
  ::close(stop_write_);
  acceptor_.join();
  std::vector<std::thread> threads;
  {
    MutexLock lock(mutex_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  ::close(listener_);
  ::close(stop_read_);
}

std::string ScriptedServer::url(std::string_view target) const {
  return cat("http://127.0.0.1:", port_, target);
}

std::vector<ScriptedRequest> ScriptedServer::requests() const {
  MutexLock lock(mutex_);
  return requests_;
}

size_t ScriptedServer::count(std::string_view target_prefix) const {
  MutexLock lock(mutex_);
  size_t count = 0;
  for (const ScriptedRequest& request : requests_)
    count += request.target.starts_with(target_prefix);
  return count;
}

bool ScriptedServer::wait_for_requests(size_t count) {
  const SteadyTime until = steady_now() + Millis(10'000);
  MutexLock lock(mutex_);
  while (requests_.size() < count)
    if (!arrived_.wait_until(mutex_, until)) return requests_.size() >= count;
  return true;
}

size_t ScriptedServer::connections() const {
  MutexLock lock(mutex_);
  return threads_.size();
}

bool ScriptedServer::wait_readable(int socket) const {
  std::array<pollfd, 2> polled{pollfd{socket, POLLIN, 0}, pollfd{stop_read_, POLLIN, 0}};
  while (::poll(polled.data(), polled.size(), -1) < 0) continue;
  return polled[1].revents == 0;
}

void ScriptedServer::accept_all() {
  while (wait_readable(listener_)) {
    const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    MutexLock lock(mutex_);
    threads_.emplace_back([this, socket] { serve(socket); });
  }
}

void ScriptedServer::serve(int socket) {
  std::string input;
  bool goes_on = true;
  while (goes_on && wait_readable(socket)) {
    std::array<char, 16384> block;
    const ssize_t got = ::recv(socket, block.data(), block.size(), 0);
    if (got <= 0) break;
    input.append(block.data(), static_cast<size_t>(got));
    if (input[0] < 'A' || input[0] > 'Z') break;  // a TLS hello: no HTTP will come
    for (size_t end = input.find("\r\n\r\n"); goes_on && end != std::string::npos;
         end = input.find("\r\n\r\n")) {
      const ScriptedRequest request = parse(input.substr(0, end + 2));
      input.erase(0, end + 4);
      {
        MutexLock lock(mutex_);
        requests_.push_back(request);
      }
      arrived_.notify_all();
      const ScriptedReply reply = script_(request);
      std::string_view rest = reply.bytes;
      while (!rest.empty()) {
        const ssize_t sent = ::send(socket, rest.data(), rest.size(), MSG_NOSIGNAL);
        if (sent <= 0) break;
        rest.remove_prefix(static_cast<size_t>(sent));
      }
      if (reply.then == ScriptedReply::Then::reset) {
        const linger hard{1, 0};
        (void)::setsockopt(socket, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
      }
      if (reply.then == ScriptedReply::Then::stall) (void)wait_readable(stop_read_);
      goes_on = reply.then == ScriptedReply::Then::keep;
    }
  }
  ::close(socket);
}

}  // namespace cake
