// Work that must not be felt.
#pragma once

namespace cake {

// From now on the calling thread runs, and reads the disk, after almost everybody else.  What the
// system refuses is left out: the work is then merely less polite.
void make_this_thread_nice();

}  // namespace cake
