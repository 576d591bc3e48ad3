#include "store/base/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "store/base/result.h"

namespace cake {

namespace {

// A chunk and what surrounds it in its pack.
constexpr size_t kSlabBytes = kMiB + kDirectAlignment;
constexpr size_t kSmallBytes = 64 * kKiB;
// Idle slabs kept for the next burst, beyond what the budget leaves room for.
constexpr size_t kLeastFreeSlabs = 16;

std::byte* map_bytes(size_t capacity) {
  void* const data = ::mmap(nullptr, capacity, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(data);
}

size_t capacity_for(size_t size) {
  if (size < kSmallBytes) return size;
  if (size <= kSlabBytes) return kSlabBytes;
  return align_up(size, 4096);
}

}  // namespace

ChunkBuffer::~ChunkBuffer() {
  pool_.release(data_, capacity_);
}

BufferPool::BufferPool(MemoryBudget& budget) : budget_(budget) {}

BufferPool::~BufferPool() {
  MutexLock lock(mutex_);
  for (std::byte* slab : free_slabs_) ::munmap(slab, kSlabBytes);
}

std::shared_ptr<ChunkBuffer> BufferPool::allocate(size_t size) {
  return make(0, size, capacity_for(size));
}

std::shared_ptr<ChunkBuffer> BufferPool::allocate_direct(uint64_t offset, size_t size) {
  const size_t lead = offset % kDirectAlignment;
  const size_t wanted = align_up(lead + size, kDirectAlignment);
  return make(lead, size, capacity_for(std::max(wanted, kSmallBytes)));
}

std::shared_ptr<ChunkBuffer> BufferPool::make(size_t lead, size_t size, size_t capacity) {
  std::byte* data = nullptr;
  if (capacity < kSmallBytes) {
    data = static_cast<std::byte*>(::operator new(std::max<size_t>(capacity, 1)));
  } else {
    if (capacity == kSlabBytes) {
      MutexLock lock(mutex_);
      if (!free_slabs_.empty()) {
        data = free_slabs_.back();
        free_slabs_.pop_back();
      }
    }
    if (data == nullptr) data = map_bytes(capacity);
  }
  budget_.add(capacity);
  return std::shared_ptr<ChunkBuffer>(new ChunkBuffer(*this, data, lead, size, capacity));
}

void BufferPool::release(std::byte* data, size_t capacity) {
  budget_.subtract(capacity);
  if (capacity < kSmallBytes) {
    ::operator delete(data);
    return;
  }
  if (capacity == kSlabBytes) {
    // A fresh slab costs 256 page faults and as many cleared pages: more than what is done with it.
    MutexLock lock(mutex_);
    const size_t kept = free_slabs_.size();
    if (kept < kLeastFreeSlabs || (kept + 1) * kSlabBytes <= budget_.available()) {
      free_slabs_.push_back(data);
      return;
    }
  }
  ::munmap(data, capacity);
}

}  // namespace cake
