#include "store/committer.h"

#include <utility>

#include "store/base/fault.h"

namespace cake {

Committer::Committer(Index& index, PutQueue& queue, PendingPuts& puts, Recoder& recoder)
    : index_(index), queue_(queue), puts_(puts), recoder_(recoder) {
  thread_.post(ThreadPool::Priority::demand, [this] { run(); });
}

void Committer::run() {
  while (true) {
    for (PutQueue::Flusher& flusher : queue_.take_flushers(false)) flusher.done({});
    PutQueue::Next next = queue_.wait_for_group();
    if (next.stop) return;
    if (!next.group) continue;
    const auto [status, outcome] = commit(*next.group);
    if (outcome == Outcome::lost) puts_.count_lost(next.group->extents);
    if (!status) puts_.log_failure(status.error());
    if (outcome == Outcome::refused)
      queue_.put_back(std::move(*next.group));
    else
      finish(std::move(*next.group), outcome);
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
  Status published = index_.publish(group.extents, id, group.end);
  if (!published) return {published, Outcome::refused};
  fault_point("index.published");
  if (group.seal && id != 0) {
    published = index_.seal_pack(id, group.end);
    fault_point("pack.sealed");
  }
  return {published, published ? Outcome::committed : Outcome::refused};
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
  if (outcome != Outcome::committed) return;
  for (const PublishedExtent& extent : group.extents)
    if (extent.replaces) recoder_.punch(*extent.replaces);
}

}  // namespace cake
