// Is somebody who waits for us about to die?
//
// The kernel sends no INTERRUPT for background reads, and holds a killed process in an O_DIRECT
// read or an unanswered LOOKUP until we answer.  So whoever parks requests asks here, from time to
// time, and answers EINTR to those whose process cannot use an answer.
#pragma once

#include <sys/types.h>

#include <string_view>

namespace cake {

// `pid` as in fuse_ctx: the *thread* that asks.  True when SIGKILL is pending for it or its
// process, when it is ending (then SIGKILL was taken already, or never is: the kernel waits for
// asynchronous reads of a process that exits), or when it is gone.  0 (a process of another pid
// namespace) and what cannot be read count as alive: any other signal, or doubt, must not end a
// read (EINTR under a page fault is SIGBUS).
bool has_fatal_signal_pending(pid_t pid);

// The same question to the text of /proc/PID/status.
bool says_fatal_signal_pending(std::string_view status);

// To the text of /proc/PID/stat: is the thread in exit(2)?
bool says_exiting(std::string_view stat);

}  // namespace cake
