// The one place where an Error becomes an errno.
#pragma once

#include "store/base/result.h"

namespace cake {

// Never EAGAIN: loaders take it for "try again" and spin.
int errno_for(Errc code);

// For requests about names: a hub that does not answer in time is not there (EHOSTUNREACH), and is
// never taken for "no such file".
int errno_for_names(Errc code);

// For listings: never ENOENT, which readdir(3) takes for the end of the directory.
int errno_for_listings(Errc code);

}  // namespace cake
