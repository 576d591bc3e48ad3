// Work that must not be felt.
#pragma once

namespace cake {

// From now on the calling thread runs, and reads the disk, only when nobody else wants to.  What
// the system refuses is left out: the work is then merely less polite.
void make_this_thread_idle();

}  // namespace cake
