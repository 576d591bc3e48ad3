// Takes back what the kernel remembers of a file whose bytes proved wrong.
//
// The kernel waits for each page that is being read, and nothing ends that wait but the read's
// answer.  A thread of the worker that waited so would outlive the worker's death: it could not be
// reaped, and its claims would keep the next one from fetching the very bytes.  So a process of
// its own waits, that shares nothing with the worker but the connection.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fs/channel.h"

namespace cake {

// Hidden subcommand of the program; the node follows it, standard input is the connection.
constexpr const char* kInvalidateCommand = "internal-invalidate";

// Drops the node's pages and attributes from the kernel's caches.  May wait for reads of the node
// that are under way: call it from a thread of its own, with no lock held.  A node that the kernel
// does not know is fine.  When `should_stop` holds it returns at once (cancelled), and what it
// began is still done.
Status invalidate_node(Channel& channel, uint64_t node, const std::function<bool()>& should_stop);

// `cake internal-invalidate NODE`.  The exit status is an errno.
int run_invalidate(const std::vector<std::string>& arguments);

}  // namespace cake
