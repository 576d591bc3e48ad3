// Which process a number meant when it was written down: numbers are given out again, and other PID
// namespaces have their own.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string_view>

#include "store/base/file.h"

namespace cake {

struct ProcessIdentity {
  pid_t pid = 0;
  uint64_t started_at = 0;     // clock ticks since boot, of /proc/PID/stat; 0: not known
  uint64_t pid_namespace = 0;  // inode of /proc/self/ns/pid; 0: not known

  static ProcessIdentity own();

  enum class Presence {
    alive,
    gone,       // ended, a zombie, or another process has the number by now
    elsewhere,  // of another PID namespace: nothing can be said
  };
  Presence presence() const;
  // A descriptor of the process, for poll(2) and pidfd_send_signal(2); not open unless it is alive.
  File open() const;
};

// Field 22 of /proc/PID/stat; 0 when the text is not such.
uint64_t start_time_of(std::string_view stat);

}  // namespace cake
