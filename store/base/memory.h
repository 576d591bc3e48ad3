// Memory for chunks: counted against one budget, recycled, and resident before the kernel reads it.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "store/base/bytes.h"
#include "store/base/mutex.h"

namespace cake {

// How much chunk memory (in flight, waiting to be written, cached) a process may hold: `mem_cache`.
// Advice that everyone asks before starting work that can wait; a demanded read is never refused.
// Thread-safe.
class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  uint64_t limit() const { return limit_bytes_; }
  uint64_t used() const { return used_bytes_.load(std::memory_order_relaxed); }
  uint64_t available() const {
    const uint64_t now = used();
    return now < limit_bytes_ ? limit_bytes_ - now : 0;
  }
  void add(uint64_t bytes) { used_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  void subtract(uint64_t bytes) { used_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

 private:
  const uint64_t limit_bytes_;
  std::atomic<uint64_t> used_bytes_{0};
};

class BufferPool;

// Of offset, length and memory of an O_DIRECT read: at least what any disk asks for.
constexpr size_t kDirectAlignment = 4096;

// Private anonymous memory.  Written by one owner, then shared as const.
class ChunkBuffer {
 public:
  ~ChunkBuffer();
  ChunkBuffer(const ChunkBuffer&) = delete;
  ChunkBuffer& operator=(const ChunkBuffer&) = delete;
  MutableByteSpan bytes() { return {data_ + lead_, size_}; }
  ByteSpan bytes() const { return {data_ + lead_, size_}; }
  size_t size() const { return size_; }
  // What an O_DIRECT read fills: bytes() and what lies around them up to multiples of
  // kDirectAlignment, in the file as in memory.  Of allocate_direct() only.
  MutableByteSpan direct_bytes() { return {data_, align_up(lead_ + size_, kDirectAlignment)}; }

 private:
  friend class BufferPool;
  ChunkBuffer(BufferPool& pool, std::byte* data, size_t lead, size_t size, size_t capacity)
      : pool_(pool), data_(data), lead_(lead), size_(size), capacity_(capacity) {}

  BufferPool& pool_;  // outlives this
  std::byte* const data_;
  const size_t lead_;
  const size_t size_;
  const size_t capacity_;
};

// The plain bytes of one extent.
using ChunkPtr = std::shared_ptr<const ChunkBuffer>;

// Gives out buffers of up to any size; those of 64 KiB to a chunk are kept for reuse as whole
// slabs, so that a busy mount neither fragments the heap nor faults in fresh pages for each chunk.
// Thread-safe.  Outlives its buffers.
class BufferPool {
 public:
  explicit BufferPool(MemoryBudget& budget);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // 4096-aligned when `size` is 64 KiB or more.  Contents are unspecified.
  std::shared_ptr<ChunkBuffer> allocate(size_t size);
  // For `size` bytes at `offset` of a file that is read with O_DIRECT: see direct_bytes().
  std::shared_ptr<ChunkBuffer> allocate_direct(uint64_t offset, size_t size);
  MemoryBudget& budget() { return budget_; }

 private:
  friend class ChunkBuffer;
  std::shared_ptr<ChunkBuffer> make(size_t lead, size_t size, size_t capacity) EXCLUDES(mutex_);
  std::byte* take_slab() EXCLUDES(mutex_);
  void release(std::byte* data, size_t capacity) EXCLUDES(mutex_);

  MemoryBudget& budget_;

  // Guarded by mutex_.  Leaf lock.
  Mutex mutex_;
  std::vector<std::byte*> regions_ GUARDED_BY(mutex_);
  std::vector<std::byte*> free_slabs_ GUARDED_BY(mutex_);   // with their pages
  std::vector<std::byte*> empty_slabs_ GUARDED_BY(mutex_);  // without
};

}  // namespace cake
