// Whole-file proof: files that are complete are compared with the hash their hub gives, when there
// is time for it, and what proves wrong is fetched again.
#pragma once

#include <functional>
#include <set>

#include "fetch/client.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"
#include "store/verify.h"

namespace cake {

struct ProofOptions {
  // How often the index is asked for files that became complete, when something was stored; and
  // when nothing was stored here (another process may have).
  Millis busy_interval{3'000};
  Millis quiet_interval{60'000};
};

// A thread of its own, joined by the destructor.  Several processes of a store share the work: each
// file is claimed.  A file whose hash is wrong is dropped, forgotten by the client and fetched
// again; wrong a second time, it is marked and kept, since asking for ever would not help.
// Thread-safe.
class FileProof {
 public:
  // Runs on that thread when the bytes of a content proved wrong, after its rows are gone and
  // before it is fetched again; the kernel's copy can be dropped there.  What takes long there
  // gives up when `should_stop` holds.
  using OnRejected = std::function<void(RowId, const std::function<bool()>& should_stop)>;

  // `client` and `metrics` outlive this.
  FileProof(Client& client, Metrics& metrics, ProofOptions options, OnRejected on_rejected);
  ~FileProof();
  FileProof(const FileProof&) = delete;
  FileProof& operator=(const FileProof&) = delete;

  // Looks now, whatever the interval.
  void wake() EXCLUDES(mutex_);

 private:
  void run() EXCLUDES(mutex_);
  // False when it is time to end.
  bool wait(Millis interval) EXCLUDES(mutex_);
  bool is_stopping() const EXCLUDES(mutex_);
  // After each chunk: while others are stored or read, a load is under way and this lets it pass.
  void give_way() EXCLUDES(mutex_);
  Status prove_some();
  Status prove(RowId id);
  Status replace(const ContentRow& content);
  Status fetch_again(const ContentRow& content);
  uint64_t chunks_stored() const;

  // Constant after construction.
  Client& client_;
  const ProofOptions options_;
  const OnRejected on_rejected_;
  Counter& stored_;
  Counter& deduplicated_;
  Counter& read_;
  Counter& files_verified_;
  Counter& files_rejected_;

  // Confined to the thread.
  std::set<RowId> rejected_;  // once already
  uint64_t moved_before_ = 0;
  RowId proved_to_ = 0;  // where the next round goes on; 0: all were looked at

  // Guarded by mutex_.  Leaf lock.
  mutable Mutex mutex_;
  CondVar changed_;
  bool is_stopping_ GUARDED_BY(mutex_) = false;
  bool is_woken_ GUARDED_BY(mutex_) = false;

  ThreadPool thread_{"cake-proof", 1};  // last: uses all of the above
};

// Reads a range through the client, so that it is in the store; for those who want bytes to be
// here, not to look at them.  `should_stop` is asked now and then.
Status fetch_range(Client& client, RowId content, ByteRange range,
                   const std::function<bool()>& should_stop);

}  // namespace cake
