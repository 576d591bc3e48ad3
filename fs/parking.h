// Requests that wait, kept as data and not as threads.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "fs/fuse_api.h"
#include "store/base/clock.h"
#include "store/base/mutex.h"

namespace cake {

class ParkingLot;

// A request that is answered exactly once: by what it waits for, by the sweep, or not at all when
// the worker leaves (then the kernel sends it again).  Thread-safe.
class ParkedRequest {
 public:
  ParkedRequest(ParkingLot& lot, fuse_req_t request, pid_t pid)
      : lot_(lot), request_(request), pid_(pid) {}

  // The request, for the one caller who may answer it; nullptr for all others.
  fuse_req_t claim();
  // From now on the sweep may answer with `error_number` once `is_due` holds: a page-cache read
  // that mixes present and absent bytes while the hub is down.
  void may_fail(int error_number, std::function<bool()> is_due);

 private:
  friend class ParkingLot;
  ParkingLot& lot_;
  const fuse_req_t request_;
  const pid_t pid_;
  const SteadyTime since_ = steady_now();
  std::atomic<bool> is_answered_{false};
  int fail_errno_ = 0;
  std::function<bool()> fail_is_due_;
  std::atomic<bool> can_fail_{false};
};
using ParkedPtr = std::shared_ptr<ParkedRequest>;

// All parked requests of a mount, and the thread that frees those nobody can use any more: the
// kernel sends no INTERRUPT for background reads, and holds a killed process in an O_DIRECT read or
// a LOOKUP until we answer.  Thread-safe.
class ParkingLot {
 public:
  ParkingLot();
  ~ParkingLot();

  // `pid`: as in fuse_ctx.
  ParkedPtr park(fuse_req_t request, pid_t pid) EXCLUDES(mutex_);
  // Nothing is answered after this: what is parked is sent again to the next worker.
  void close() EXCLUDES(mutex_);
  // Waits until nothing is parked, at most until `deadline`.
  void drain(Deadline deadline) EXCLUDES(mutex_);
  size_t size() const EXCLUDES(mutex_);

 private:
  friend class ParkedRequest;
  void remove(const ParkedRequest* request) EXCLUDES(mutex_);
  void sweep() EXCLUDES(mutex_);
  void run() EXCLUDES(mutex_);

  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  CondVar changed_;
  std::unordered_map<const ParkedRequest*, ParkedPtr> parked_ GUARDED_BY(mutex_);
  bool is_closed_ GUARDED_BY(mutex_) = false;
  bool is_stopping_ GUARDED_BY(mutex_) = false;

  std::thread sweeper_;  // last: uses the others
};

}  // namespace cake
