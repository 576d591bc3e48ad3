#include "fs/process_identity.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "fs/process_signals.h"
#include "store/base/bytes.h"

namespace cake {
namespace {

constexpr uint64_t kMaxStatBytes = 4096;

uint64_t read_start_time(pid_t pid) {
  const Result<std::string> stat = read_text_file(cat("/proc/", pid, "/stat"), kMaxStatBytes);
  return stat ? start_time_of(*stat) : 0;
}

uint64_t own_pid_namespace() {
  struct stat info {};
  return ::stat("/proc/self/ns/pid", &info) == 0 ? info.st_ino : 0;
}

}  // namespace

uint64_t start_time_of(std::string_view stat) {
  // The name in parentheses may hold blanks; behind it comes field 3.
  size_t at = stat.rfind(')');
  for (int field = 2; field < 22 && at != std::string_view::npos; field++)
    at = stat.find(' ', at + 1);
  if (at == std::string_view::npos) return 0;
  return std::strtoull(std::string(stat.substr(at)).c_str(), nullptr, 10);
}

ProcessIdentity ProcessIdentity::own() {
  return {getpid(), read_start_time(getpid()), own_pid_namespace()};
}

ProcessIdentity::Presence ProcessIdentity::presence() const {
  if (pid <= 0) return Presence::gone;
  if (const uint64_t own = own_pid_namespace();
      pid_namespace != 0 && own != 0 && pid_namespace != own)
    return Presence::elsewhere;
  // A zombie is not alive: who reaps it may take its time.
  if (has_fatal_signal_pending(pid)) return Presence::gone;
  const uint64_t now = read_start_time(pid);
  return started_at != 0 && now != 0 && now != started_at ? Presence::gone : Presence::alive;
}

File ProcessIdentity::open() const {
  File process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)), "process");
  // Once it is held, the number cannot become another's.
  return process.is_open() && presence() == Presence::alive ? std::move(process) : File();
}

}  // namespace cake
