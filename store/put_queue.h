// Between the pool's tasks, the writer and the committer: entries to append, groups to publish, and
// the flushes that wait for both.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <vector>

#include "store/base/mutex.h"
#include "store/put_item.h"

namespace cake {

// Everything that is put has a sequence number.  It is *unwritten* until it joins the open group,
// and *unpublished* until that group's rows are there or its failure is known; a flush waits for
// the numbers below its own.  Groups go open -> closed -> settled.  Does no I/O and calls nobody.
// Thread-safe.
class PutQueue {
 public:
  // Appended together: small enough that nobody waits long for the first, and that a slow disk is
  // noticed soon.
  static constexpr uint64_t kBatchBytes = 2 * kMiB;
  static constexpr size_t kBatchEntries = 256;
  // Encoders, or the disk, are behind when this part of the memory budget waits for them: half of
  // what makes readahead pause (fetch/fetcher.cc).
  static constexpr uint64_t kBehindShare = 8;

  // --- anyone ---
  // The number of something that will be submitted, or join the group without bytes, or fail.
  uint64_t announce() EXCLUDES(mutex_);
  void submit(PutItem item) EXCLUDES(mutex_);
  // As submit, for what was not announced.
  void submit_new(PutItem item) EXCLUDES(mutex_);
  // What was announced will have no row.
  void withdraw(uint64_t sequence) EXCLUDES(mutex_);

  // What an announced number adds to the open group.
  struct Addition {
    uint64_t sequence = 0;
    uint64_t bytes = 0;
    std::optional<PublishedExtent> extent;
    Digest content = {};  // zero: no record is made of what follows
    std::optional<SegmentItem> deduped = {};
    std::optional<UnencodedChunk> unencoded = {};
  };
  void add_to_group(Addition addition) EXCLUDES(mutex_);

  size_t waiting_items() const EXCLUDES(mutex_);
  // The index has refused rows for so long that no more can be kept for it.
  bool is_choked() const EXCLUDES(mutex_);

  struct Flusher {
    uint64_t target = 0;  // all sequences below
    std::function<void(Status)> done;
  };
  void flush(std::function<void(Status)> done) EXCLUDES(mutex_);
  // The writer and the committer end once they have nothing left to do.
  void stop() EXCLUDES(mutex_);

  // --- the writer ---
  struct Work {
    std::vector<PutItem> items;
    uint64_t still_waiting_bytes = 0;  // behind these items
    bool all_settled = false;          // the disk has all groups that were closed
    std::optional<PutGroup> close;
    bool quiet = false;
    bool stop = false;
  };
  // `has_room`: disk space was taken that is not used; then a quiet second is work too.
  Work wait_for_work(bool has_room) EXCLUDES(mutex_);
  PutGroup take_open() EXCLUDES(mutex_);
  // Hands a group over to the committer.
  void close(PutGroup group) EXCLUDES(mutex_);
  // See condemn(), which the committer calls.
  bool is_condemned(uint32_t pack) const EXCLUDES(mutex_);
  // Until every closed group is settled, or the deadline.
  void wait_until_settled(SteadyTime deadline) EXCLUDES(mutex_);

  // --- the committer ---
  // Those whose puts are all done with; or all.
  std::vector<Flusher> take_flushers(bool all) EXCLUDES(mutex_);
  struct Next {
    std::optional<PutGroup> group;  // none: a flusher can be answered
    bool stop = false;
  };
  Next wait_for_group() EXCLUDES(mutex_);
  // The index has refused it: comes again, after a while or for a flush.
  void put_back(PutGroup group) EXCLUDES(mutex_);
  // Published, or given up.
  void settle(const PutGroup& group) EXCLUDES(mutex_);
  // Nothing more may go into the pack, whoever is to take it next.
  void condemn(uint32_t pack) EXCLUDES(mutex_);

 private:
  uint64_t take_number() REQUIRES(mutex_);
  bool must_close() const REQUIRES(mutex_);
  bool can_commit() const REQUIRES(mutex_);

  // Guarded by mutex_.  Leaf lock: no I/O and no callback while it is held.
  mutable Mutex mutex_;
  CondVar writer_wake_, committer_wake_, settled_;
  uint64_t next_sequence_ GUARDED_BY(mutex_) = 0;
  std::set<uint64_t> unwritten_ GUARDED_BY(mutex_);    // not yet in a group
  std::set<uint64_t> unpublished_ GUARDED_BY(mutex_);  // not yet published or failed
  std::deque<PutItem> items_ GUARDED_BY(mutex_);
  uint64_t items_bytes_ GUARDED_BY(mutex_) = 0;  // of their payloads
  PutGroup open_ GUARDED_BY(mutex_);
  std::set<uint32_t> condemned_ GUARDED_BY(mutex_);  // packs
  std::deque<PutGroup> closed_ GUARDED_BY(mutex_);
  size_t closed_extents_ GUARDED_BY(mutex_) = 0;
  uint64_t groups_closed_ GUARDED_BY(mutex_) = 0, groups_settled_ GUARDED_BY(mutex_) = 0;
  SteadyTime retry_at_ GUARDED_BY(mutex_) = SteadyTime::min();
  std::vector<Flusher> flushers_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace cake
