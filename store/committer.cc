#include "store/committer.h"

#include <set>
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
    seal_condemned();
    if (!unnamed.empty()) record_unnamed(next.group->extents, unnamed);
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
  // What was to seal a pack that has been given up since: nothing is lost with it.
  if (queue_.is_condemned(id) && group.sequences.empty()) return {Status(), Outcome::committed, {}};
  if (group.pack != nullptr) {
    // One failed fdatasync condemns the pack: the kernel may have dropped any of its pages, and
    // says so once (see fsync(2), "ERRORS").
    const Status synced = queue_.is_condemned(id)
                              ? Error{Errc::io, group.pack->path() + " was given up"}
                              : group.pack->sync();
    if (!synced) {
      queue_.condemn(id);
      to_seal_.emplace(id, group.pack);
      return {synced, Outcome::lost};
    }
    fault_point("pack.synced");
  }
  Result<std::vector<Location>> unnamed = index_.publish(group.extents, id, group.end);
  // A damaged index stays damaged: what it refuses for that must not hold up what comes behind it.
  if (!unnamed)
    return {unnamed.error(),
            unnamed.error().code == Errc::corrupt ? Outcome::lost : Outcome::refused};
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

// So that nobody salvages bytes that only the page cache has.  A full disk refuses this too, for a
// while.
void Committer::seal_condemned() {
  std::erase_if(to_seal_, [&](const auto& pack) {
    const Status sealed = index_.seal_pack(pack.first, 0);
    if (!sealed) puts_.log_failure(sealed.error());
    return sealed.ok();
  });
}

// The group has its rows, or will have none.
void Committer::finish(PutGroup group, Outcome::Kind outcome) {
  puts_.forget(group.extents);
  if (outcome == Outcome::committed) recoder_.add(std::move(group.unencoded));
  queue_.settle(group);
}

// An entry also tells what its extent is, from which a lost index is made again.  Where it goes, a
// record takes its place, as for what was deduplicated before it was written.
void Committer::record_unnamed(const std::vector<PublishedExtent>& extents,
                               const std::vector<Location>& unnamed) {
  std::set<std::pair<uint32_t, uint64_t>> places;
  for (const Location& location : unnamed) places.insert({location.pack, location.offset});
  std::map<RowId, Digest> names;
  for (const PublishedExtent& extent : extents) {
    if (extent.content == 0 || !extent.location ||
        !places.contains({extent.location->pack, extent.location->offset}))
      continue;
    const auto [name, is_new] = names.try_emplace(extent.content);
    if (is_new) {
      const auto content = index_.find_content(extent.content);
      if (!content) puts_.log_failure(content.error());
      if (content && *content)
        name->second = Digest::from_hex(content_pack_name((*content)->source, (*content)->key))
                           .value_or(Digest{});
    }
    PutQueue::Addition addition;
    addition.sequence = queue_.announce();
    addition.content = name->second;
    addition.deduped = {extent.ordinal, extent.location->plain_bytes, extent.digest};
    queue_.add_to_group(addition);
  }
}

// Without the sync, a power loss would bring back a row whose bytes are gone.
void Committer::punch(const std::vector<Location>& unnamed) {
  Status done = index_.sync();
  if (done) {
    const Result<uint64_t> punched = punch_entries(packs_, index_, unnamed);
    if (!punched) done = punched.error();
  }
  // Costs disk until Evictor::give_back_unnamed finds them, nothing else.
  if (!done) log_warn(done.error().with("entries that no row names").message);
}

}  // namespace cake
