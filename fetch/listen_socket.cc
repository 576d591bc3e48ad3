#include "fetch/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <memory>
#include <vector>

#include "store/base/bytes.h"

namespace cake {

namespace {

struct HostPort {
  std::string host, port;
};
Result<HostPort> split_address(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) return Error{Errc::invalid, listen + ": not HOST:PORT"};
  HostPort out{listen.substr(0, colon), listen.substr(colon + 1)};
  if (out.host.size() >= 2 && out.host.front() == '[' && out.host.back() == ']')
    out.host = out.host.substr(1, out.host.size() - 2);
  else if (out.host.find(':') != std::string::npos)
    return Error{Errc::invalid, listen + ": an IPv6 address wants brackets"};
  unsigned number = 0;
  const char* end = out.port.data() + out.port.size();
  const auto parsed = std::from_chars(out.port.data(), end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end || number > 65535)
    return Error{Errc::invalid, listen + ": not a port"};
  return out;
}

}  // namespace

std::string numeric_address(const sockaddr* address, socklen_t length, bool with_port) {
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (getnameinfo(address, length, host.data(), host.size(), port.data(), port.size(),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "?";
  if (!with_port) return host.data();
  const bool is_v6 = address->sa_family == AF_INET6;
  return is_v6 ? cat('[', host.data(), "]:", port.data()) : cat(host.data(), ':', port.data());
}

Result<ListenSocket> listen_on(const std::string& where) {
  const HostPort parts = CAKE_TRY(split_address(where));
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  // Without a host: any address, of IPv6 and so of both, if the kernel has it.
  const int failed = getaddrinfo(parts.host.empty() ? nullptr : parts.host.c_str(),
                                 parts.port.c_str(), &hints, &found);
  if (failed != 0) return Error{Errc::invalid, cat(where, ": ", gai_strerror(failed))};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
  std::vector<const addrinfo*> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next)
    addresses.push_back(each);
  if (parts.host.empty())
    std::stable_partition(addresses.begin(), addresses.end(),
                          [](const addrinfo* each) { return each->ai_family == AF_INET6; });
  Error last{Errc::io, where + ": no address"};
  for (const addrinfo* each : addresses) {
    File socket(::socket(each->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), where);
    if (!socket.is_open()) {
      last = last_error("socket for " + where);
      continue;
    }
    const int on = 1, off = 0;
    ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (each->ai_family == AF_INET6)
      ::setsockopt(socket.fd(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (::bind(socket.fd(), each->ai_addr, each->ai_addrlen) != 0 ||
        ::listen(socket.fd(), 1024) != 0) {
      last = last_error("listening on " + where);
      continue;
    }
    sockaddr_storage bound{};
    socklen_t length = sizeof bound;
    if (::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&bound), &length) != 0)
      return last_error("address of " + where);
    ListenSocket made;
    made.port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                                  : reinterpret_cast<sockaddr_in&>(bound).sin_port);
    made.address = numeric_address(reinterpret_cast<sockaddr*>(&bound), length, true);
    made.socket = std::move(socket);
    return made;
  }
  return last;
}

}  // namespace cake
