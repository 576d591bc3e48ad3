#include "store/base/priority.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store/base/log.h"

namespace cake {

namespace {

// linux/ioprio.h, which distributions' headers often lack: class in the top three bits.
constexpr int kIoprioWhoProcess = 1;
constexpr int kIoprioLowest = (2 << 13) | 7;  // best effort, the last of its levels
constexpr int kNiceLowest = 19;

}  // namespace

// Not SCHED_IDLE and not the idle I/O class: on a machine that is always busy those may wait for
// minutes, also with a lock of the index in hand or when told to stop.
void make_this_thread_nice() {
  // A thread id of 0 is the caller.
  if (setpriority(PRIO_PROCESS, 0, kNiceLowest) != 0 ||
      syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, kIoprioLowest) != 0)
    log_debug("the lowest priority is not to be had here");
}

}  // namespace cake
