// Makes closed groups durable, then gives them their rows.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "store/base/thread_pool.h"
#include "store/pending_puts.h"
#include "store/put_queue.h"
#include "store/recoder.h"

namespace cake {

// A thread that takes groups from the queue until that is stopped, and answers flushes; the
// destructor waits for it.
class Committer {
 public:
  // `packs`: their folder.  All others outlive this.
  Committer(std::string packs, Index& index, PutQueue& queue, PendingPuts& puts, Recoder& recoder);

 private:
  struct Outcome {
    Status status;
    // lost: the bytes are not durable, or the index will never take their rows; refused: the rows
    // can be tried again.
    enum Kind { committed, lost, refused } kind;
    std::vector<Location> unnamed = {};  // entries that no row names after it
  };
  void run();
  Outcome commit(const PutGroup& group);
  void seal_condemned();
  void finish(PutGroup group, Outcome::Kind outcome);
  void record_unnamed(const std::vector<PublishedExtent>& extents,
                      const std::vector<Location>& unnamed);
  void punch(const std::vector<Location>& unnamed);

  // Constant after construction; they synchronise themselves.
  const std::string packs_;
  Index& index_;
  PutQueue& queue_;
  PendingPuts& puts_;
  Recoder& recoder_;

  // Confined to the thread.
  // Condemned packs until they are sealed.  Their lock is held so long: nobody else takes them.
  std::map<uint32_t, std::shared_ptr<const PackWriter>> to_seal_;

  ThreadPool thread_{"cake-commit", 1};  // last: uses all of the above
};

}  // namespace cake
