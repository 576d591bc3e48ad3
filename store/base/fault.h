// Named points where a test may kill the process, between two durable steps.
//
// CAKE_FAULT="pack.synced:3" in the environment ends the process with SIGKILL at the third passage
// of that point: what a crash leaves behind is then a test case.  Unset, a point costs one load.
#pragma once

namespace cake {

void fault_point(const char* name);

}  // namespace cake
