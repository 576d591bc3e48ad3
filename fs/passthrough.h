// Opens of materialized files, handed to the kernel: what is read then never comes here.
#pragma once

#include <atomic>
#include <cstdint>

#include "fs/channel.h"
#include "store/index.h"
#include "store/materialize.h"

namespace cake {

// How each open of a mount is answered, and the end of each.
//
// The kernel keeps an inode in one mode while it is open, so a content changes between cached and
// passthrough only when nobody has it open.  A backing file is registered at the first open and
// given up with the last; what the kernel holds is the very open description that carries the lock
// against removal, so a worker's death changes nothing.  Thread-safe.
class Passthrough {
 public:
  // `materializer` may be null: then every open is a cached one.  It outlives this.
  explicit Passthrough(Materializer* materializer) : materializer_(materializer) {}

  // Counts an open and says how to answer it; call Channel::pass_next_open_through with the
  // backing id when the mode is passthrough.
  OpenRecord open(Channel& channel, uint64_t node, const ContentRow& content);
  void release(Channel& channel, uint64_t node, bool is_resent);

 private:
  // Registers the content's file; 0 when it is not materialized, or the kernel does not want it.
  int32_t register_file(Channel& channel, const ContentRow& content);
  static void unregister(Channel& channel, int32_t backing_id);

  // Constant after construction.
  Materializer* const materializer_;

  // The kernel refused once, which it will again: a store on a stacked file system, for one.
  std::atomic<bool> is_refused_{false};
};

}  // namespace cake
