#include "store/committer.h"

#include <utility>

#include "store/base/fault.h"
#include "store/base/log.h"
#include "store/punch.h"

namespace cake {

Committer::Committer(std::string packs, Index& index, PutQueue& queue, PendingPuts& puts,
                     Recoder& recoder)
    : packs_(std::move(packs)), index_(index), queue_(queue), puts_(puts), recoder_(recoder) {
  thread_.post(ThreadPool::Priority::demand, [this] { run(); });
}

void Committer::run() {
  while (true) {
    for (PutQueue::Flusher& flusher : queue_.take_flushers(false)) flusher.done({});
    PutQueue::Next next = queue_.wait_for_group();
    if (next.stop) return;
    if (!next.group) continue;
    const auto [status, outcome, unnamed] = commit(*next.group);
    if (outcome == Outcome::lost) puts_.count_lost(next.group->extents);
    if (!status) puts_.log_failure(status.error());
    if (outcome == Outcome::refused)
      queue_.put_back(std::move(*next.group));
    else
      finish(std::move(*next.group), outcome);
    // Once nobody is told of these places any more.
    if (!unnamed.empty()) punch(unnamed);
    recoder_.recode_when_idle();
    if (!status)
      for (PutQueue::Flusher& flusher : queue_.take_flushers(true)) flusher.done(status);
  }
}

Committer::Outcome Committer::commit(const PutGroup& group) {
  const uint32_t id = group.pack != nullptr ? group.pack->id() : 0;
  if (group.pack != nullptr) {
    // One failed fdatasync condemns the pack: the kernel may have dropped any of its pages, and
    // says so once (see fsync(2), "ERRORS").
    const Status synced = failed_packs_.contains(id)
                              ? Error{Errc::io, group.pack->path() + " was given up"}
                              : group.pack->sync();
    if (!synced) {
      give_up(id);
      return {synced, Outcome::lost};
    }
    fault_point("pack.synced");
  }
  Result<std::vector<Location>> unnamed = index_.publish(group.extents, id, group.end);
  if (!unnamed) return {unnamed.error(), Outcome::refused};
  fault_point("index.published");
  Status sealed;
  if (group.seal && id != 0) {
    // Left unsealed, it is only looked at again.  The rows are there, and must not come a second
    // time: what they name may be evicted by then.
    sealed = index_.seal_pack(id, group.end);
    fault_point("pack.sealed");
  }
  return {sealed, Outcome::committed, std::move(*unnamed)};
}

// Sealed, so that nobody salvages bytes that only the page cache has.
void Committer::give_up(uint32_t pack_id) {
  if (!failed_packs_.insert(pack_id).second) return;
  const Status sealed = index_.seal_pack(pack_id, 0);
  if (!sealed) puts_.log_failure(sealed.error());
  queue_.ask_for_rotation();
}

// The group has its rows, or will have none.
void Committer::finish(PutGroup group, Outcome::Kind outcome) {
  puts_.forget(group.extents);
  if (outcome == Outcome::committed) recoder_.add(std::move(group.unencoded));
  queue_.settle(group);
}

// Without the sync, a power loss would bring back a row whose bytes are gone.
void Committer::punch(const std::vector<Location>& unnamed) {
  Status done = index_.sync();
  fault_point("index.synced");
  if (done) {
    const Result<uint64_t> punched = punch_entries(packs_, index_, unnamed);
    if (!punched) done = punched.error();
  }
  // Costs disk until Evictor::give_back_unnamed finds them, nothing else.
  if (!done) log_warn(done.error().with("entries that no row names").message);
}

}  // namespace cake
