// Makes closed groups durable, then gives them their rows.
#pragma once

#include <set>

#include "store/base/thread_pool.h"
#include "store/pending_puts.h"
#include "store/put_queue.h"
#include "store/recoder.h"

namespace cake {

// A thread that takes groups from the queue until that is stopped, and answers flushes; the
// destructor waits for it.
class Committer {
 public:
  // All of these outlive this.
  Committer(Index& index, PutQueue& queue, PendingPuts& puts, Recoder& recoder);

 private:
  struct Outcome {
    Status status;
    // lost: the bytes are not durable; refused: they are, and the rows can be tried again.
    enum Kind { committed, lost, refused } kind;
  };
  void run();
  Outcome commit(const PutGroup& group);
  void give_up(uint32_t pack_id);
  void finish(PutGroup group, Outcome::Kind outcome);

  // Constant after construction; they synchronise themselves.
  Index& index_;
  PutQueue& queue_;
  PendingPuts& puts_;
  Recoder& recoder_;

  // Confined to the thread.
  std::set<uint32_t> failed_packs_;

  ThreadPool thread_{"cake-commit", 1};  // last: uses all of the above
};

}  // namespace cake
