#include "fs/process_signals.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace cake {
namespace {

std::string_view field(std::string_view status, std::string_view name) {
  for (size_t at = 0; at < status.size();) {
    const size_t end = std::min(status.find('\n', at), status.size());
    const std::string_view line = status.substr(at, end - at);
    if (line.starts_with(name)) {
      const size_t value = line.find_first_not_of(" \t", name.size());
      return value == std::string_view::npos ? std::string_view() : line.substr(value);
    }
    at = end + 1;
  }
  return {};
}

bool has_sigkill(std::string_view mask) {
  const uint64_t bits = strtoull(std::string(mask).c_str(), nullptr, 16);
  return (bits >> (SIGKILL - 1) & 1) != 0;
}

bool is_gone(pid_t pid) {
  return kill(pid, 0) != 0 && errno == ESRCH;
}

}  // namespace

bool says_fatal_signal_pending(std::string_view status) {
  const std::string_view state = field(status, "State:");
  if (state.starts_with('Z') || state.starts_with('X')) return true;
  return has_sigkill(field(status, "SigPnd:")) || has_sigkill(field(status, "ShdPnd:"));
}

bool has_fatal_signal_pending(pid_t pid) {
  if (pid <= 0) return false;
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  // /proc may be mounted to hide other users' processes (hidepid), so its word is not enough.
  if (fd < 0) return is_gone(pid);
  char text[8192];  // about 1.5 KiB is usual; the two masks come before what can be long
  size_t bytes = 0;
  ssize_t got = 0;
  while (bytes < sizeof text && (got = read(fd, text + bytes, sizeof text - bytes)) > 0)
    bytes += static_cast<size_t>(got);
  close(fd);
  if (bytes == 0) return is_gone(pid);
  return says_fatal_signal_pending(std::string_view(text, bytes));
}

}  // namespace cake
