// Takes back what the kernel remembers of a file whose bytes proved wrong.
#pragma once

#include <cstdint>

#include "fs/channel.h"

namespace cake {

// Drops the node's pages and attributes from the kernel's caches.  May wait for reads of the node
// that are under way: call it from a thread of its own, with no lock held.  A node that the kernel
// does not know is fine.
Status invalidate_node(Channel& channel, uint64_t node);

}  // namespace cake
