// The worker: the process that serves a mount, for as long as it lives.
//
// A child of the keeper.  It adopts the Channel, builds the Filesystem, and calls run_worker, which
// returns when the mount is gone or the keeper wants the worker gone.
#pragma once

#include <cstdint>

#include "fs/channel.h"

struct fuse_lowlevel_ops;
struct fuse_conn_info;
struct fuse_session;

namespace cake {

// What a worker serves.  Operations are libfuse's; their userdata is the Filesystem itself, so
// `static_cast<Filesystem*>(fuse_req_userdata(req))` leads back here (use the base in the cast:
// the pointer that was handed over is a Filesystem*).
class Filesystem {
 public:
  virtual ~Filesystem() = default;
  // Constant for the object's life.  `init` in it is ignored; on_init is called instead.
  virtual const fuse_lowlevel_ops* ops() const = 0;
  // INIT arrived.  Ask for what is wanted in `want`; run_worker sets max_read, max_background and
  // switches splice off.  Called on the main thread, before any other operation.
  virtual void on_init(fuse_conn_info& connection) = 0;
  // No more requests will come.  Finish what needs no network and answer it, within 2 s; what stays
  // unanswered is sent again to the next worker.  After the return nothing may be answered.
  virtual void on_drain() = 0;
  // The session goes, whatever ended it: after the return nothing may be answered, nor be being
  // answered.
  virtual void on_end() {}

  // Valid from on_init until run_worker returns.
  Channel& channel() const { return *channel_; }
  fuse_session* session() const { return session_; }

 private:
  friend class Worker;
  Channel* channel_ = nullptr;
  fuse_session* session_ = nullptr;
};

struct WorkerOptions {
  unsigned threads = 8;
  unsigned max_read_bytes = 1u << 20;  // equal to the mount's
  unsigned max_background = 4096;
};

// Serves until the mount is gone, or drains on SIGTERM (which the keeper started us with blocked,
// so that every thread has it blocked).  Returns the process's exit status: 0 after either, 2 when
// the connection failed.  Exit with it soon.
int run_worker(Filesystem& filesystem, Channel& channel, const WorkerOptions& options);

}  // namespace cake
