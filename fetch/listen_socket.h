// A TCP socket that listens, from "HOST:PORT".
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "store/base/file.h"
#include "store/base/result.h"

namespace cake {

struct ListenSocket {
  File socket;
  uint16_t port = 0;
  std::string address;  // "127.0.0.1:8080", "[::1]:8080"
};

// HOST:PORT, [V6]:PORT or :PORT (every address, IPv6 and IPv4 on one socket); port 0: any.
// Errors: invalid  malformed, or the host does not resolve
//         io       it cannot be bound
Result<ListenSocket> listen_on(const std::string& where);

// "127.0.0.1", "::1"; with its port as in ListenSocket::address.
std::string numeric_address(const sockaddr* address, socklen_t length, bool with_port);

}  // namespace cake
