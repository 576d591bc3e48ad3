// Appends what is put to this process's pack, and closes groups.
#pragma once

#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "store/base/thread_pool.h"
#include "store/pending_puts.h"
#include "store/put_queue.h"
#include "store/recoder.h"

namespace cake {

class Evictor;

// A thread that takes work from the queue until that is stopped; the destructor waits for it.
class PutWriter {
 public:
  struct Options {
    std::string directory;       // of packs
    uint64_t pack_bytes = 0;     // another pack is begun when one is longer
    Evictor* evictor = nullptr;  // asked for disk space; null: there is no limit
  };
  // All of these outlive this.
  PutWriter(Options options, Index& index, BufferPool& buffers, PutQueue& queue, PendingPuts& puts,
            Recoder& recoder);

 private:
  void run();
  void choose_way(const PutQueue::Work& work);
  Status acquire_pack();
  Result<std::shared_ptr<PackWriter>> take_over(const Index::PackRow& row);
  Status take_room(std::span<const NewEntry> entries);
  Status take_exact_room(std::span<const NewEntry> entries);
  void give_back_room();
  void write(std::vector<PutItem> items);
  void write_batch(std::vector<PutItem> batch);
  void end_without_job(const PutItem& item, const Result<Location>& location);
  Status append_segments(const PutGroup& group);
  void close(PutGroup group);
  void publish_written();

  // Constant after construction; they synchronise themselves.
  const Options options_;
  Index& index_;
  BufferPool& buffers_;
  PutQueue& queue_;
  PendingPuts& puts_;
  Recoder& recoder_;

  // Confined to the thread.
  std::shared_ptr<PackWriter> pack_;
  std::set<uint32_t> left_alone_;  // packs that could not be gone on with, each logged
  PackWriter::Way way_ = PackWriter::Way::past_cache;
  uint64_t reserved_end_ = 0;  // of the pack: the disk has blocks for it up to there
  // Behind the pack's end there may be blocks: those reserved, or what the file system took ahead
  // (XFS, which keeps that in a file where room was ever reserved).
  bool may_have_room_ = false;

  ThreadPool thread_{"cake-write", 1};  // last: uses all of the above
};

}  // namespace cake
