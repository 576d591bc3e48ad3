// The program that runs, and its libraries, kept in the page cache.
#pragma once

namespace cake {

// Maps all that is loaded of these files, so that `drop_caches`, or memory that others want, does
// not make the next worker wait for the disk: pages that somebody has mapped go last.  They are
// shared with the worker and cost no memory of their own.  What cannot be mapped is left out.
void keep_program_resident();

}  // namespace cake
