#include "fs/process_signals.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
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

// Empty when it cannot be read.
std::string_view read_proc(pid_t pid, const char* name, std::span<char> room) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  size_t bytes = 0;
  ssize_t got = 0;
  while (bytes < room.size() && (got = read(fd, room.data() + bytes, room.size() - bytes)) > 0)
    bytes += static_cast<size_t>(got);
  close(fd);
  return {room.data(), bytes};
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

// `STATE PARENT GROUP SESSION TERMINAL ITS_GROUP FLAGS` behind the name, which may be anything.
bool says_exiting(std::string_view stat) {
  constexpr unsigned long kExiting = 0x4;  // PF_EXITING of include/linux/sched.h
  size_t at = stat.rfind(')');
  for (int i = 0; i < 7 && at != std::string_view::npos; i++) at = stat.find(' ', at + 1);
  return at != std::string_view::npos &&
         (strtoul(std::string(stat.substr(at)).c_str(), nullptr, 10) & kExiting) != 0;
}

bool has_fatal_signal_pending(pid_t pid) {
  if (pid <= 0) return false;
  char text[8192];  // about 1.5 KiB is usual; the two masks come before what can be long
  const std::string_view status = read_proc(pid, "status", text);
  // /proc may be mounted to hide other users' processes (hidepid), so its word is not enough.
  if (status.empty()) return is_gone(pid);
  if (says_fatal_signal_pending(status)) return true;
  return says_exiting(read_proc(pid, "stat", text));
}

}  // namespace cake
