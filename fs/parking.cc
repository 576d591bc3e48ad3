#include "fs/parking.h"

#include <cerrno>
#include <map>
#include <unordered_map>
#include <vector>

#include "fs/process_signals.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"

namespace cake {

namespace {

// A killed reader is free within this; each round reads one small file of /proc a waiting thread.
constexpr Millis kSweepEvery{250};
// Younger requests are left to what they wait for.
constexpr Millis kSweepAge{200};

}  // namespace

struct ParkingState {
  // Guarded by mutex.  Leaf lock.
  Mutex mutex;
  CondVar left;     // fewer are parked or being answered
  CondVar stopped;  // for the sweeper
  std::unordered_map<const ParkedRequest*, ParkedPtr> parked GUARDED_BY(mutex);
  size_t being_answered GUARDED_BY(mutex) = 0;
  bool is_closed GUARDED_BY(mutex) = false;
  bool is_stopping GUARDED_BY(mutex) = false;
};

ClaimedRequest::ClaimedRequest(std::shared_ptr<ParkingState> lot, fuse_req_t request)
    : lot_(std::move(lot)), request_(request) {}

ClaimedRequest::~ClaimedRequest() {
  if (!lot_) return;
  MutexLock lock(lot_->mutex);
  if (--lot_->being_answered == 0) lot_->left.notify_all();
}

// Who takes it out of the lot answers it.
ClaimedRequest ParkedRequest::claim() {
  ParkedPtr kept;  // its callbacks may own much: freed after the lock
  MutexLock lock(lot_->mutex);
  const auto found = lot_->parked.find(this);
  if (found == lot_->parked.end()) return {};
  kept = std::move(found->second);
  lot_->parked.erase(found);
  lot_->being_answered++;
  return {lot_, request_};
}

void ParkedRequest::may_fail(int error_number, std::function<bool()> is_due) {
  fail_errno_ = error_number;
  fail_is_due_ = std::move(is_due);
  can_fail_.store(true, std::memory_order_release);
}

ParkingLot::ParkingLot() : state_(std::make_shared<ParkingState>()), sweeper_([this] { run(); }) {}

ParkingLot::~ParkingLot() {
  close();
  {
    MutexLock lock(state_->mutex);
    state_->is_stopping = true;
  }
  state_->stopped.notify_all();
  sweeper_.join();
}

ParkedPtr ParkingLot::park(fuse_req_t request, pid_t pid) {
  auto parked = std::make_shared<ParkedRequest>(state_, request, pid);
  MutexLock lock(state_->mutex);
  // A closed lot answers nothing: the request stays with the kernel.
  if (!state_->is_closed) state_->parked.emplace(parked.get(), parked);
  return parked;
}

void ParkingLot::close() {
  std::unordered_map<const ParkedRequest*, ParkedPtr> kept;  // freed after the lock
  MutexLock lock(state_->mutex);
  state_->is_closed = true;
  kept.swap(state_->parked);
  // Short: writing to the kernel's end waits for nobody.
  while (state_->being_answered != 0) state_->left.wait(state_->mutex);
}

void ParkingLot::drain(Deadline deadline) {
  MutexLock lock(state_->mutex);
  while (!state_->parked.empty() || state_->being_answered != 0)
    if (!state_->left.wait_until(state_->mutex, deadline.at())) return;
}

size_t ParkingLot::size() const {
  MutexLock lock(state_->mutex);
  return state_->parked.size();
}

void ParkingLot::sweep() {
  std::vector<ParkedPtr> waiting;
  {
    MutexLock lock(state_->mutex);
    for (const auto& [key, parked] : state_->parked)
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
    const ClaimedRequest request = parked->claim();
    if (request != nullptr) fuse_reply_err(request, error_number);
  }
}

void ParkingLot::run() {
  name_this_thread("cake-sweep");
  while (true) {
    {
      MutexLock lock(state_->mutex);
      const SteadyTime next = steady_now() + kSweepEvery;
      while (!state_->is_stopping && steady_now() < next)
        if (!state_->stopped.wait_until(state_->mutex, next)) break;
      if (state_->is_stopping) return;
      if (state_->parked.empty()) continue;
    }
    sweep();
  }
}

}  // namespace cake
