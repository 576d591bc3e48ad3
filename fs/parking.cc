#include "fs/parking.h"

#include <cerrno>
#include <map>
#include <vector>

#include "fs/process_signals.h"
#include "store/base/thread_pool.h"

namespace cake {

namespace {

// A killed reader is free within this; each round reads one small file of /proc a waiting thread.
constexpr Millis kSweepEvery{250};
// Younger requests are left to what they wait for.
constexpr Millis kSweepAge{200};

}  // namespace

fuse_req_t ParkedRequest::claim() {
  if (is_answered_.exchange(true)) return nullptr;
  lot_.remove(this);
  return request_;
}

void ParkedRequest::may_fail(int error_number, std::function<bool()> is_due) {
  fail_errno_ = error_number;
  fail_is_due_ = std::move(is_due);
  can_fail_.store(true, std::memory_order_release);
}

ParkingLot::ParkingLot() : sweeper_([this] { run(); }) {}

ParkingLot::~ParkingLot() {
  {
    MutexLock lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_all();
  sweeper_.join();
}

ParkedPtr ParkingLot::park(fuse_req_t request, pid_t pid) {
  auto parked = std::make_shared<ParkedRequest>(*this, request, pid);
  MutexLock lock(mutex_);
  // A closed lot answers nothing: the request stays with the kernel.
  if (is_closed_) parked->is_answered_ = true;
  if (!is_closed_) parked_.emplace(parked.get(), parked);
  return parked;
}

void ParkingLot::remove(const ParkedRequest* request) {
  ParkedPtr kept;  // its callbacks may own much: freed after the lock
  MutexLock lock(mutex_);
  const auto found = parked_.find(request);
  if (found == parked_.end()) return;
  kept = std::move(found->second);
  parked_.erase(found);
  if (parked_.empty()) changed_.notify_all();
}

void ParkingLot::close() {
  std::vector<ParkedPtr> kept;
  MutexLock lock(mutex_);
  is_closed_ = true;
  for (auto& [key, parked] : parked_) {
    parked->is_answered_ = true;
    kept.push_back(parked);
  }
  parked_.clear();
}

void ParkingLot::drain(Deadline deadline) {
  MutexLock lock(mutex_);
  while (!parked_.empty())
    if (!changed_.wait_until(mutex_, deadline.at())) return;
}

size_t ParkingLot::size() const {
  MutexLock lock(mutex_);
  return parked_.size();
}

void ParkingLot::sweep() {
  std::vector<ParkedPtr> waiting;
  {
    MutexLock lock(mutex_);
    for (const auto& [key, parked] : parked_)
      if (steady_now() - parked->since_ >= kSweepAge) waiting.push_back(parked);
  }
  std::map<pid_t, bool> is_dying;
  for (const ParkedPtr& parked : waiting) {
    auto known = is_dying.find(parked->pid_);
    if (known == is_dying.end())
      known = is_dying.emplace(parked->pid_, has_fatal_signal_pending(parked->pid_)).first;
    int error_number = 0;
    if (known->second)
      error_number = EINTR;
    else if (parked->can_fail_.load(std::memory_order_acquire) && parked->fail_is_due_())
      error_number = parked->fail_errno_;
    if (error_number == 0) continue;
    if (const fuse_req_t request = parked->claim()) fuse_reply_err(request, error_number);
  }
}

void ParkingLot::run() {
  name_this_thread("cake-sweep");
  while (true) {
    {
      MutexLock lock(mutex_);
      if (is_stopping_) return;
      const SteadyTime next = steady_now() + kSweepEvery;
      while (!is_stopping_ && steady_now() < next)
        if (!changed_.wait_until(mutex_, next)) break;
      if (is_stopping_) return;
      if (parked_.empty()) continue;
    }
    sweep();
  }
}

}  // namespace cake
