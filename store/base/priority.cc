#include "store/base/priority.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store/base/log.h"

namespace cake {

namespace {

// linux/ioprio.h, which distributions' headers often lack: class in the top three bits.
constexpr int kIoprioWhoProcess = 1;
constexpr int kIoprioClassIdle = 3 << 13;

}  // namespace

void make_this_thread_idle() {
  sched_param parameters{};
  if (sched_setscheduler(0, SCHED_IDLE, &parameters) != 0)
    log_debug("idle scheduling is not to be had here");
  // A thread id of 0 is the caller.
  if (syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, kIoprioClassIdle) != 0)
    log_debug("an idle I/O class is not to be had here");
}

}  // namespace cake
