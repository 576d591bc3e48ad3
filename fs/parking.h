// Requests that wait, kept as data and not as threads.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "fs/fuse_api.h"
#include "store/base/clock.h"

namespace cake {

class ParkedRequest;
using ParkedPtr = std::shared_ptr<ParkedRequest>;
// What a lot and its requests share (parking.cc): what they wait for may come when the lot is gone.
struct ParkingState;

// A request in the hands of the one who may answer it, for as long as that takes; null for all
// others.  Closing the lot waits for it: an answer needs the FUSE session.
class ClaimedRequest {
 public:
  ClaimedRequest() = default;
  ClaimedRequest(std::shared_ptr<ParkingState> lot, fuse_req_t request);
  ~ClaimedRequest();
  ClaimedRequest(const ClaimedRequest&) = delete;
  ClaimedRequest& operator=(const ClaimedRequest&) = delete;

  // For the fuse_reply_ functions.
  operator fuse_req_t() const { return request_; }  // NOLINT(google-explicit-constructor)

 private:
  const std::shared_ptr<ParkingState> lot_;
  const fuse_req_t request_ = nullptr;
};

// A request that is answered exactly once: by what it waits for, by the sweep, or not at all when
// the worker leaves (then the kernel sends it again) or the connection has ended.  Thread-safe.
class ParkedRequest {
 public:
  ParkedRequest(std::shared_ptr<ParkingState> lot, fuse_req_t request, pid_t pid)
      : lot_(std::move(lot)), request_(request), pid_(pid) {}

  // The request, for the one caller who may answer it; null for all others.
  ClaimedRequest claim();
  // From now on the sweep may answer with `error_number` once `is_due` holds: a page-cache read
  // that mixes present and absent bytes while the hub is down.
  void may_fail(int error_number, std::function<bool()> is_due);

 private:
  friend class ParkingLot;
  const std::shared_ptr<ParkingState> lot_;
  const fuse_req_t request_;
  const pid_t pid_;
  const SteadyTime since_ = steady_now();
  int fail_errno_ = 0;
  std::function<bool()> fail_is_due_;
  std::atomic<bool> can_fail_{false};
};

// All parked requests of a mount, and the thread that frees those nobody can use any more: the
// kernel sends no INTERRUPT for background reads, and holds a killed process in an O_DIRECT read or
// a LOOKUP until we answer.  Thread-safe.
class ParkingLot {
 public:
  ParkingLot();
  ~ParkingLot();  // closes it

  // `pid`: as in fuse_ctx.
  ParkedPtr park(fuse_req_t request, pid_t pid);
  // Nothing is answered after this, nor being answered: what is parked is sent again to the next
  // worker, if there is one.
  void close();
  // Waits until nothing is parked, at most until `deadline`.
  void drain(Deadline deadline);
  size_t size() const;

 private:
  void sweep();
  void run();

  const std::shared_ptr<ParkingState> state_;
  std::thread sweeper_;  // last: uses the other
};

}  // namespace cake
