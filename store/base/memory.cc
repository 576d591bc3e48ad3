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

// Slabs are mapped so many at a time, on huge pages where the system has them: a fresh one then
// costs half, and so does finding its pages for each read of the disk and each reply.
constexpr size_t kRegionSlabs = 32;
constexpr size_t kRegionBytes = kRegionSlabs * kSlabBytes;
constexpr size_t kHugePageBytes = 2 * kMiB;

std::byte* map_bytes(size_t capacity, int flags) {
  void* const data =
      ::mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  return static_cast<std::byte*>(data);
}

// Begins with a huge page, or the kernel would make small ones of its first and last.
std::byte* map_region() {
  std::byte* const mapped = map_bytes(kRegionBytes + kHugePageBytes, MAP_NORESERVE);
  const size_t lead = align_up(reinterpret_cast<uintptr_t>(mapped), kHugePageBytes) -
                      reinterpret_cast<uintptr_t>(mapped);
  if (lead != 0) ::munmap(mapped, lead);
  if (lead != kHugePageBytes) ::munmap(mapped + lead + kRegionBytes, kHugePageBytes - lead);
  ::madvise(mapped + lead, kRegionBytes, MADV_HUGEPAGE);
  return mapped + lead;
}

// Linux before 5.14 does not know how: then its pages come one by one.
void populate(std::byte* slab) {
  ::madvise(slab, kSlabBytes, MADV_POPULATE_WRITE);
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
  for (std::byte* region : regions_) ::munmap(region, kRegionBytes);
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
    data = capacity == kSlabBytes ? take_slab() : map_bytes(capacity, MAP_POPULATE);
  }
  budget_.add(capacity);
  return std::shared_ptr<ChunkBuffer>(new ChunkBuffer(*this, data, lead, size, capacity));
}

std::byte* BufferPool::take_slab() {
  std::byte* slab = nullptr;
  {
    MutexLock lock(mutex_);
    if (!free_slabs_.empty()) {
      slab = free_slabs_.back();
      free_slabs_.pop_back();
      return slab;
    }
    if (empty_slabs_.empty()) {
      std::byte* const region = map_region();
      regions_.push_back(region);
      // The first of the region is taken first: its huge pages serve the next ones too.
      for (size_t i = kRegionSlabs; i-- > 0;) empty_slabs_.push_back(region + i * kSlabBytes);
    }
    slab = empty_slabs_.back();
    empty_slabs_.pop_back();
  }
  populate(slab);
  return slab;
}

void BufferPool::release(std::byte* data, size_t capacity) {
  budget_.subtract(capacity);
  if (capacity < kSmallBytes) {
    ::operator delete(data);
    return;
  }
  if (capacity != kSlabBytes) {
    ::munmap(data, capacity);
    return;
  }
  {
    // Fresh pages cost more than what is done with them.
    MutexLock lock(mutex_);
    const size_t kept = free_slabs_.size();
    if (kept < kLeastFreeSlabs || (kept + 1) * kSlabBytes <= budget_.available()) {
      free_slabs_.push_back(data);
      return;
    }
  }
  ::madvise(data, kSlabBytes, MADV_DONTNEED);
  MutexLock lock(mutex_);
  empty_slabs_.push_back(data);
}

}  // namespace cake
