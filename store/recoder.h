// Chunks at rest, encoded anew: those that were stored as they are while processors were short, and
// those that somebody asks for.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "store/base/metrics.h"
#include "store/base/mutex.h"
#include "store/base/thread_pool.h"
#include "store/put_queue.h"

namespace cake {

// Encodes one chunk at a time, while no put uses the pool and the writer keeps up.  Thread-safe.
class Recoder {
 public:
  Recoder(CodecChoice codec, Index& index, PackReader& reader, BufferPool& buffers,
          ThreadPool& pool, PutQueue& queue, Metrics& metrics);

  // A put's task of the pool.  Its end is the last thing that it does: without a task left, this
  // may be destroyed.
  void begin_task() EXCLUDES(mutex_);
  void end_task() EXCLUDES(mutex_);

  // Durable and with their rows.  More than can be remembered stay as they are.
  void add(std::vector<UnencodedChunk> chunks) EXCLUDES(mutex_);
  // To be called when the writer or the committer has got on.
  void recode_when_idle() EXCLUDES(mutex_);

  // On the calling thread.  False when it stays as it is: gone or moved meanwhile, or not smaller
  // this way.
  Result<bool> recode(const UnencodedChunk& chunk);

  // Nothing more is begun of itself.
  void stop() EXCLUDES(mutex_);
  // No task is left.
  void wait_for_tasks() EXCLUDES(mutex_);

 private:
  std::optional<UnencodedChunk> take_next() REQUIRES(mutex_);
  void post(UnencodedChunk chunk);

  // Constant after construction.
  const CodecChoice codec_;
  Index& index_;
  PackReader& reader_;
  BufferPool& buffers_;
  ThreadPool& pool_;
  PutQueue& queue_;
  Counter& recoded_;

  // Guarded by mutex_.  Only the queue's lock is taken while it is held.
  Mutex mutex_;
  CondVar idle_;
  size_t tasks_ GUARDED_BY(mutex_) = 0;
  std::deque<UnencodedChunk> chunks_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
};

}  // namespace cake
