// Ends a FUSE connection from outside.
#pragma once

#include <cstdint>

namespace cake {

// Ends all requests of the mount with this device number, unless its connection has ended already.
// The exit of the last process that has the connection does so too, but until then detaching may
// wait, in the kernel, for a reply that nobody will write.  0 when it is ended or may not be by us;
// else an errno.  Allocates nothing.
int abort_connection(int fuse_fd, uint32_t device_minor);

}  // namespace cake
